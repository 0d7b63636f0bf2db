package netstack

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/xfeldman/aegisvm/internal/netstack/netstacktest"
)

// heap returns what is in use, in bytes.
func heap() uint64 {
	runtime.GC()
	runtime.GC() // what a pool had is given back by the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// from returns an address of the guest.
func from(i int) netip.AddrPort { return netip.AddrPortFrom(Guest, uint16(1024+i%60000)) }

// A guest that floods costs a bounded amount of memory, and another guest nothing.
func TestFloods(t *testing.T) {
	n := 5000
	if os.Getenv("AEGIS_STRESS") == "1" {
		n = 100_000
	}
	floods := map[string]func(r *rig){
		"SYNs to a silent address": func(r *rig) {
			r.send(n, func(i int) []byte { return netstacktest.SYN(from(i), ap("93.184.216.34:9"), uint32(i)) })
			if got := r.Traffic().Connections; got > r.limits.Opening {
				r.tb.Errorf("%d connections are being made", got)
			}
		},
		"SYNs to many addresses": func(r *rig) {
			r.send(n, func(i int) []byte {
				return netstacktest.SYN(from(i), netip.AddrPortFrom(netip.AddrFrom4([4]byte{93, 184, byte(i >> 8), byte(i)}), 9), uint32(i))
			})
		},
		"SYNs to denied addresses": func(r *rig) {
			r.send(n, func(i int) []byte {
				return netstacktest.SYN(from(i), netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 9), uint32(i))
			})
		},
		"half-open connections to the workspace": func(r *rig) {
			r.send(n, func(i int) []byte { return netstacktest.SYN(from(i), ap("192.168.127.1:2049"), uint32(i)) })
		},
		"half-open connections for names": func(r *rig) {
			r.send(n, func(i int) []byte { return netstacktest.SYN(from(i), ap("192.168.127.1:53"), uint32(i)) })
		},
		"datagrams to many addresses": func(r *rig) {
			r.send(n, func(i int) []byte {
				return netstacktest.Datagram(from(i), netip.AddrPortFrom(netip.AddrFrom4([4]byte{93, 184, byte(i >> 8), byte(i)}), 9), []byte("x"))
			})
			if got := r.Traffic().Flows; got > r.limits.Flows {
				r.tb.Errorf("%d flows", got)
			}
		},
		"datagrams that the outside does not take": func(r *rig) {
			r.send(3000, func(i int) []byte {
				return netstacktest.Datagram(from(i%100), ap("93.184.216.34:7"), make([]byte, 30000))
			})
			if got := r.udp.waiting.Load(); got > udpBacklog {
				r.tb.Errorf("%d bytes wait", got)
			}
		},
		"fragments": func(r *rig) {
			r.send(n, func(i int) []byte {
				f := netstacktest.Datagram(from(i), ap("93.184.216.34:9"), make([]byte, 1400))
				ip := header.IPv4(f[header.EthernetMinimumSize:])
				ip.SetID(uint16(i))
				ip.SetFlagsFragmentOffset(header.IPv4FlagMoreFragments, 0)
				ip.SetChecksum(0)
				ip.SetChecksum(^ip.CalculateChecksum())
				return f
			})
		},
		"addresses of others": func(r *rig) {
			r.send(n, func(i int) []byte {
				return netstacktest.SYN(netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 168, byte(i >> 8), byte(i)}), 5), ap("93.184.216.34:9"), 1)
			})
			if got := r.world.dialed(); len(got) > 1 {
				r.tb.Errorf("dialed %d times", len(got))
			}
		},
		"ARP": func(r *rig) {
			r.send(n, func(i int) []byte {
				a := header.ARP(make([]byte, header.ARPSize))
				a.SetIPv4OverEthernet()
				a.SetOp(header.ARPRequest)
				copy(a.ProtocolAddressSender(), Guest.AsSlice())
				copy(a.ProtocolAddressTarget(), Gateway.AsSlice())
				binary.BigEndian.PutUint32(a.HardwareAddressSender(), uint32(i))
				return netstacktest.Frame(header.ARPProtocolNumber, a)
			})
		},
		"frames of no kind": func(r *rig) {
			r.send(n, func(i int) []byte { return make([]byte, i%70000) })
		},
		"IPv6": func(r *rig) {
			r.send(n, func(int) []byte { return netstacktest.Frame(header.IPv6ProtocolNumber, make([]byte, 100)) })
		},
		"pings of the world": func(r *rig) {
			echo := header.ICMPv4(make([]byte, header.ICMPv4MinimumSize))
			echo.SetType(header.ICMPv4Echo)
			r.send(n, func(i int) []byte {
				return netstacktest.Packet(Guest, netip.AddrFrom4([4]byte{93, 184, byte(i >> 8), byte(i)}), header.ICMPv4ProtocolNumber, echo)
			})
		},
	}
	other := start(t)
	other.echoInGuest(t)
	for name, flood := range floods {
		t.Run(name, func(t *testing.T) {
			r := start(t, silent, func(c *Config) { c.Denied = func(Denial) {} })
			if _, err := r.Listen(2049); err != nil { // whose connections nobody accepts
				t.Fatal(err)
			}
			before := heap()
			stop := make(chan struct{})
			served := make(chan int)
			ctx := soon(t)
			go func() {
				n := 0
				// Slowly: what it leaves for half a second after each connection is no
				// part of what the flood costs.
				pace := time.NewTicker(5 * time.Millisecond)
				defer pace.Stop()
				for {
					select {
					case <-stop:
						served <- n
						return
					case <-pace.C:
					}
					c, err := other.Dial(ctx, 80)
					if err != nil {
						t.Errorf("the other guest: %v", err)
						served <- n
						return
					}
					if err := talk(c, "x"); err != nil {
						t.Errorf("the other guest: %v", err)
					}
					_ = c.Close()
					n++
				}
			}()
			begun := time.Now()
			flood(r)
			took := time.Since(begun)
			after := heap()
			close(stop)
			t.Logf("%v, %d KB more, the other guest was served %d times", took, (int64(after)-int64(before))>>10, <-served)
			if after > before+32<<20 {
				t.Errorf("the flood costs %d MB", (after-before)>>20)
			}
			if err := r.guest.Ping(soon(t), Gateway); err != nil {
				t.Errorf("the guest itself is not served after its flood: %v", err)
			}
		})
	}
}

// silent makes 93.184.0.0/16 take nothing and answer nothing.
func silent(c *Config) {
	dial := c.Dial
	c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if network == "tcp" {
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}
		if addr == "93.184.216.34:7" {
			a, _ := net.Pipe() // nobody reads
			return a, nil
		}
		_, _ = dial(ctx, network, addr)
		return net.Dial("udp", "127.0.0.1:9")
	}
}

// send sends frames, and waits until the network has seen them all.
func (r *rig) send(n int, frame func(i int) []byte) {
	r.tb.Helper()
	for i := range n {
		if err := r.guest.Send(frame(i)); err != nil {
			r.tb.Fatalf("frame %d: %v", i, err)
		}
	}
	if err := r.guest.Ping(soon(r.tb), Gateway); err != nil {
		r.tb.Fatal(err)
	}
}

// Connections that are really made have a limit too, and the next is refused.
func TestTooManyConnections(t *testing.T) {
	r := start(t, func(c *Config) { c.Limits.Connections = 20 })
	r.world.serve(t, "93.184.216.34:1", echo)
	l, err := r.Listen(2049)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(io.Discard, c)
				_ = c.Close()
			}()
		}
	}()
	for _, to := range []string{"93.184.216.34:1", "192.168.127.1:2049"} {
		var conns []netstacktest.Conn
		good := 0
		for range 40 {
			c, err := r.guest.Dial(soon(t), ap(to))
			if err != nil && !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.ECONNRESET) {
				t.Fatal(err)
			}
			if err == nil {
				conns = append(conns, c)
			}
		}
		for _, c := range conns {
			_ = c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
				good++
			}
		}
		if good != 20 {
			t.Errorf("%s: %d connections, the limit is 20", to, good)
		}
		for _, c := range conns {
			_ = c.Close()
		}
		r.idle(t)
		if !r.reach(t, to) {
			t.Errorf("%s: refused after the others ended", to)
		}
	}
}

// A guest that does not acknowledge the end of a connection does not keep it.
func TestLinger(t *testing.T) {
	r := start(t, func(c *Config) { c.Limits.Linger = 50 * time.Millisecond })
	r.echoInGuest(t)
	r.world.serve(t, "93.184.216.34:1", echo)
	in, err := r.Dial(soon(t), 80)
	if err != nil {
		t.Fatal(err)
	}
	r.guest.Pause()
	_, _ = in.Write([]byte("x"))
	_ = in.Close()
	r.idle(t)
}

// Nor does one that does not complete its own handshake.
func TestUnfinishedHandshake(t *testing.T) {
	var theirs sync.Map
	r := start(t, func(c *Config) {
		c.Limits.DialTimeout = 50 * time.Millisecond
		c.Dial = func(context.Context, string, string) (net.Conn, error) {
			a, b := net.Pipe()
			theirs.Store(b, nil)
			return a, nil
		}
	})
	r.guest.Pause()
	for i := range 10 {
		if err := r.guest.Send(netstacktest.SYN(from(i), ap("93.184.216.34:1"), 1)); err != nil {
			t.Fatal(err)
		}
	}
	for r.Traffic().Out.Packets < 10 {
		time.Sleep(time.Millisecond)
	}
	r.idle(t)
	theirs.Range(func(c, _ any) bool {
		if _, err := c.(net.Conn).Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("the outside: %v", err)
		}
		return true
	})
}

// The more connections, the less each may hold.
func TestShares(t *testing.T) {
	r := start(t)
	if got := r.bufferSize(); got != tcpBufferMax {
		t.Errorf("the first gets %d", got)
	}
	var sum int64
	for range r.limits.Connections {
		if _, err := r.flows.begin(outward, r.limits.Connections, ap("93.184.216.34:1"), nil); err != nil {
			t.Fatal(err)
		}
		sum += r.bufferSize()
	}
	if got := r.bufferSize(); got != tcpBufferMin || sum > 200<<20 {
		t.Errorf("the last gets %d, all %d MB", got, sum>>20)
	}
	r.flows.mu.Lock()
	clear(r.flows.all) // they are none
	r.flows.mu.Unlock()
}

// Idle flows of datagrams end.
func TestIdleFlows(t *testing.T) {
	r := start(t, silent, func(c *Config) { c.Limits.FlowIdle = 20 * time.Millisecond })
	r.send(100, func(i int) []byte { return netstacktest.Datagram(from(i), ap("93.184.216.34:9"), []byte("x")) })
	r.idle(t)
	r.udp.mu.Lock()
	defer r.udp.mu.Unlock()
	if len(r.udp.all) != 0 || r.udp.waiting.Load() != 0 {
		t.Errorf("%d flows, %d bytes wait", len(r.udp.all), r.udp.waiting.Load())
	}
}

// What a connection takes it gives back.
func TestManyConnections(t *testing.T) {
	r := start(t)
	r.echoInGuest(t)
	r.world.serve(t, "93.184.216.34:1", echo)
	ctx := soon(t)
	round := func(n int) {
		for range n {
			c, err := r.Dial(ctx, 80)
			if err != nil {
				t.Fatal(err)
			}
			if err := talk(c, "x"); err != nil {
				t.Fatal(err)
			}
			_ = c.Close()
			out, err := r.guest.Dial(ctx, ap("93.184.216.34:1"))
			if err != nil {
				t.Fatal(err)
			}
			if err := talk(out, "x"); err != nil {
				t.Fatal(err)
			}
			_ = out.Close()
		}
		r.idle(t)
		time.Sleep(time.Second) // of TIME_WAIT
	}
	round(100)
	before, goroutines := heap(), runtime.NumGoroutine()
	round(500)
	after := heap()
	t.Logf("%d bytes each, %d more goroutines", (int64(after)-int64(before))/500, runtime.NumGoroutine()-goroutines)
	if after > before+500*4000 || runtime.NumGoroutine() > goroutines+10 {
		t.Errorf("%d KB and %d goroutines are left", (after-before)>>10, runtime.NumGoroutine()-goroutines)
	}
}
