package netstack

import (
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/internal/netstack/netstacktest"
)

func TestDialIntoTheGuest(t *testing.T) {
	r := start(t)
	l, err := r.guest.Listen(80)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b, _ := io.ReadAll(c)
			_, _ = c.Write(append(b, '!'))
			_ = c.Close()
		}
	}()
	for range 3 {
		c, err := r.Dial(soon(t), 80)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("hi")); err != nil {
			t.Fatal(err)
		}
		if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(c)
		if string(b) != "hi!" || err != nil {
			t.Errorf("%q, %v", b, err)
		}
		_ = c.Close()
		if l, r := c.LocalAddr().String(), c.RemoteAddr().String(); r != "192.168.127.2:80" || !strings.HasPrefix(l, "192.168.127.1:") {
			t.Errorf("from %s to %s", l, r)
		}
		if _, err := c.Write([]byte("x")); err == nil {
			t.Error("a closed connection takes bytes")
		}
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("a closed connection gives bytes")
		}
	}
	begun := time.Now()
	if _, err := r.Dial(soon(t), 81); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a port on which nothing listens: %v", err)
	}
	t.Logf("refused after %v", time.Since(begun))
}

func TestGuestDialsOut(t *testing.T) {
	r := start(t)
	r.world.serve(t, "93.184.216.34:80", echo)
	c, err := r.guest.Dial(soon(t), ap("93.184.216.34:80"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); string(b) != "hello" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	_ = c.Close()
	begun := time.Now()
	if _, err := r.guest.Dial(soon(t), ap("93.184.216.34:81")); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("what the outside refuses: %v", err)
	}
	t.Logf("refused after %v", time.Since(begun))
}

func TestGuestDialsTheGateway(t *testing.T) {
	r := start(t)
	l, err := r.Listen(2049)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, err = io.Copy(c, c)
			_ = c.Close()
		}
		served <- err
	}()
	c, err := r.guest.Dial(soon(t), ap("192.168.127.1:2049"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	_ = c.CloseWrite()
	if b, err := io.ReadAll(c); string(b) != "hello" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	if got := r.Traffic(); got.In.Packets != 0 || got.Out.Packets != 0 {
		t.Errorf("the workspace counts as traffic: %+v", got)
	}
	_ = l.Close()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: %v", err)
	}
	if _, err := r.guest.Dial(soon(t), ap("192.168.127.1:2049")); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a closed listener: %v", err)
	}
}

func TestDatagrams(t *testing.T) {
	r := start(t)
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pc.Close() }()
	r.world.put("udp", "93.184.216.34:9", pc.LocalAddr().String())
	go func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo(buf[:n], from)
		}
	}()
	c, err := r.guest.DialUDP(ap("93.184.216.34:9"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for _, size := range []int{1, 1400, 60000, 65507} {
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := c.Write(make([]byte, size)); err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		buf := make([]byte, 1<<16)
		if n, err := c.Read(buf); n != size || err != nil {
			t.Errorf("%d of %d bytes, %v", n, size, err)
		}
	}
}

// What the outside refuses is refused in the guest.
func TestRefusedDatagrams(t *testing.T) {
	r := start(t)
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.world.put("udp", "93.184.216.34:9", pc.LocalAddr().String())
	_ = pc.Close()
	for _, to := range []string{"93.184.216.34:9", "93.184.216.34:10"} {
		if _, err := r.guest.Ask(soon(t), ap(to), []byte("x")); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: %v", to, err)
		}
	}
}

// There are no neighbours, and the guest learns that from the gateway.
func TestNeighbours(t *testing.T) {
	r := start(t)
	if r.reach(t, "192.168.127.77:22") {
		t.Error("another machine is reachable")
	}
	if d := r.denial(t); d.Addr.String() != "192.168.127.77" {
		t.Error(d)
	}
}

func TestDeniedAtOnce(t *testing.T) {
	r := start(t)
	for _, to := range []string{"10.0.0.1:80", "127.0.0.1:22", "169.254.169.254:80", "8.20.30.40:22", "192.168.127.1:80", "192.168.127.9:80"} {
		for network, want := range map[string]netstacktest.Answer{"tcp": netstacktest.Reset, "udp": netstacktest.Unreachable} {
			begun := time.Now()
			got, err := r.guest.Probe(soon(t), network, ap(to))
			if got != want || err != nil {
				t.Errorf("%s %s: %q, %v", network, to, got, err)
			}
			t.Logf("%v: %s", time.Since(begun), r.denial(t))
		}
	}
	if got := r.world.dialed(); len(got) != 0 {
		t.Errorf("dialed %v", got)
	}
}

func TestPing(t *testing.T) {
	r := start(t)
	if err := r.guest.Ping(soon(t), Gateway); err != nil {
		t.Error(err)
	}
	if got, err := r.guest.Probe(soon(t), "icmp", ap("8.8.8.8:0")); got != netstacktest.Prohibited || err != nil {
		t.Errorf("a ping of another: %q, %v", got, err)
	}
	if d := r.denial(t); d.Protocol != "icmp" || d.Addr != ap("8.8.8.8:0").Addr() {
		t.Error(d)
	}
}
