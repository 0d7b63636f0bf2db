package netstack

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/xfeldman/aegisvm/internal/netstack/netstacktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what has to happen.
const patience = 20 * time.Second

// world is the outside: addresses of it stand for sockets on this host.
type world struct {
	mu    sync.Mutex
	at    map[string]string // "tcp 93.184.216.34:80" -> an address here
	dials []string
}

func (w *world) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	w.mu.Lock()
	w.dials = append(w.dials, network+" "+addr)
	to, ok := w.at[network+" "+addr]
	w.mu.Unlock()
	if !ok {
		return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
	}
	return new(net.Dialer).DialContext(ctx, network, to)
}

func (w *world) dialed() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.dials...)
}

// put makes addr stand for to.
func (w *world) put(network, addr, to string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at[network+" "+addr] = to
}

// serve makes a TCP listener that stands at addr in the world.
func (w *world) serve(tb testing.TB, addr string, handle func(*net.TCPConn)) {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	w.put("tcp", addr, l.Addr().String())
	var wg sync.WaitGroup
	var conns sync.Map
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Store(c, nil)
			wg.Go(func() {
				defer func() { _ = c.Close() }()
				handle(c.(*net.TCPConn))
			})
		}
	})
	tb.Cleanup(func() {
		_ = l.Close()
		conns.Range(func(c, _ any) bool { return c.(net.Conn).Close() == nil || true })
		wg.Wait()
	})
}

// echo sends back what it gets, and its end.
func echo(c *net.TCPConn) { _, _ = io.Copy(c, c) }

// rig is a network with a guest.
type rig struct {
	*Network

	tb    testing.TB
	guest *netstacktest.Guest
	world *world

	mu      sync.Mutex
	denials []Denial
	told    chan struct{}
}

// start makes a rig. The host has the address 198.51.100.7 unless change says other.
func start(tb testing.TB, change ...func(*Config)) *rig {
	tb.Helper()
	r := &rig{tb: tb, world: &world{at: map[string]string{}}, told: make(chan struct{}, 1000)}
	c := Config{
		Dial: r.world.dial, Log: slog.New(slog.NewTextHandler(tb.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
		HostAddrs: func() ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("8.20.30.40")}, nil },
		HostNets:  func() ([]netip.Prefix, error) { return []netip.Prefix{netip.MustParsePrefix("2a02:b0b::/64")}, nil },
		Routable:  func(netip.Addr) bool { return true },
		Denied: func(d Denial) {
			r.mu.Lock()
			r.denials = append(r.denials, d)
			r.mu.Unlock()
			r.told <- struct{}{}
		},
		Limits: Limits{Denials: 1000},
	}
	for _, f := range change {
		f(&c)
	}
	n, err := New(c)
	if err != nil {
		tb.Fatal(err)
	}
	r.Network = n
	tb.Cleanup(func() { _ = n.Close() })
	host, guest := netstacktest.Pair(tb)
	r.guest = netstacktest.Start(tb, guest)
	n.Attach(host)
	return r
}

// denial waits for the next denial.
func (r *rig) denial(tb testing.TB) Denial {
	tb.Helper()
	select {
	case <-r.told:
	case <-time.After(patience):
		tb.Fatal("nobody was told of a denial")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	d := r.denials[0]
	r.denials = r.denials[1:]
	return d
}

// denialOf waits for the next denial of a protocol.
func (r *rig) denialOf(tb testing.TB, protocol string) Denial {
	tb.Helper()
	for {
		if d := r.denial(tb); d.Protocol == protocol {
			return d
		}
	}
}

func soon(tb testing.TB) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	tb.Cleanup(cancel)
	return ctx
}

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
