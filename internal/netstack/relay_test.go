package netstack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"

	"github.com/xfeldman/aegisvm/internal/netstack/netstacktest"
)

// Either side may end its half and go on listening.
func TestHalfClose(t *testing.T) {
	r := start(t)
	heard := make(chan string, 2)
	r.world.serve(t, "93.184.216.34:1", func(c *net.TCPConn) { // hears the end, then answers
		b, _ := io.ReadAll(c)
		heard <- string(b)
		_, _ = c.Write([]byte("answer"))
	})
	r.world.serve(t, "93.184.216.34:2", func(c *net.TCPConn) { // says all and ends, then listens
		_, _ = c.Write([]byte("greeting"))
		_ = c.CloseWrite()
		b, _ := io.ReadAll(c)
		heard <- string(b)
	})
	c, err := r.guest.Dial(soon(t), ap("93.184.216.34:1"))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = c.Write([]byte("question"))
	_ = c.CloseWrite()
	if h := <-heard; h != "question" {
		t.Errorf("the outside heard %q", h)
	}
	if b, err := io.ReadAll(c); string(b) != "answer" || err != nil {
		t.Errorf("the guest heard %q, %v", b, err)
	}
	_ = c.Close()

	c, err = r.guest.Dial(soon(t), ap("93.184.216.34:2"))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); string(b) != "greeting" || err != nil {
		t.Errorf("the guest heard %q, %v", b, err)
	}
	if _, err := c.Write([]byte("late")); err != nil {
		t.Error(err)
	}
	_ = c.Close()
	if h := <-heard; h != "late" {
		t.Errorf("the outside heard %q", h)
	}
	r.idle(t)
}

// idle waits until the network has no connections.
func (r *rig) idle(tb testing.TB) {
	tb.Helper()
	ctx := soon(tb)
	for {
		got := r.Traffic()
		if got.Connections+got.Inbound+got.Flows == 0 && r.flows.count(served) == 0 {
			return
		}
		if ctx.Err() != nil {
			tb.Fatalf("still open: %+v", got)
		}
		time.Sleep(time.Millisecond)
	}
}

// A guest that has closed a connection is found to be gone by a host that says nothing.
// One that has only ended its direction is not.
func TestGone(t *testing.T) {
	// A system answers one probe in half a second, to be no reflector.
	r := start(t, func(c *Config) { c.Limits.Probe = 600 * time.Millisecond })
	l, err := r.guest.Listen(80)
	if err != nil {
		t.Fatal(err)
	}
	ended := func() (host net.Conn, guest *gonet.TCPConn) {
		host, err := r.Dial(soon(t), 80)
		if err != nil {
			t.Fatal(err)
		}
		in, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return host, in.(*gonet.TCPConn)
	}
	half, in := ended()
	_ = in.CloseWrite()
	_, _ = io.ReadAll(half)
	closed, other := ended()
	_ = other.Close()
	if b, err := io.ReadAll(closed); len(b) != 0 || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	select {
	case <-closed.(*conn).Gone().Done():
	case <-soon(t).Done():
		t.Error("a guest that has closed is not found to be gone")
	}
	if half.(*conn).Gone().Err() != nil {
		t.Error("a guest that still listens is taken to be gone")
	}
	if _, err := half.Write([]byte("late")); err != nil {
		t.Error(err)
	}
	_ = half.Close()
	_ = in.SetReadDeadline(time.Now().Add(10 * time.Second))
	if b, err := io.ReadAll(in); string(b) != "late" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	_, _, _ = closed.Close(), in.Close(), l.Close()
	r.idle(t)
}

// A connection that breaks on one side breaks on the other.
func TestResets(t *testing.T) {
	r := start(t)
	outside := make(chan error, 1)
	r.world.serve(t, "93.184.216.34:1", func(c *net.TCPConn) {
		_, _ = c.Read(make([]byte, 1))
		_ = c.SetLinger(0)
	})
	r.world.serve(t, "93.184.216.34:2", func(c *net.TCPConn) {
		_, err := io.ReadAll(c)
		outside <- err
	})
	c, err := r.guest.Dial(soon(t), ap("93.184.216.34:1"))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = c.Write([]byte("x"))
	if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the guest sees %v", err)
	}
	_ = c.Close()
	if c, err = r.guest.Dial(soon(t), ap("93.184.216.34:2")); err != nil {
		t.Fatal(err)
	}
	c.Abort()
	if err := <-outside; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the outside sees %v", err)
	}
	r.idle(t)
}

// What passes is whole, both ways at once, on many connections.
func TestBulk(t *testing.T) {
	r := start(t)
	r.world.serve(t, "93.184.216.34:1", echo)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			c, err := r.guest.Dial(soon(t), ap("93.184.216.34:1"))
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = c.Close() }()
			data := make([]byte, 3<<20+i)
			_, _ = rand.NewChaCha8([32]byte{byte(i)}).Read(data)
			go func() {
				_, _ = c.Write(data)
				_ = c.CloseWrite()
			}()
			h := sha256.New()
			if n, err := io.Copy(h, c); n != int64(len(data)) || err != nil {
				t.Errorf("%d of %d bytes, %v", n, len(data), err)
			}
			if want := sha256.Sum256(data); !bytes.Equal(h.Sum(nil), want[:]) {
				t.Error("the bytes have changed")
			}
		})
	}
	wg.Wait()
	if got := r.Traffic(); got.In.Bytes < 24<<20 || got.Out.Bytes < 24<<20 || got.Dropped != 0 || got.Last.IsZero() {
		t.Errorf("%+v", got)
	}
	r.idle(t)
}

// A destination that does not answer holds only its own connection, and not beyond
// the limits.
func TestSilentDestinations(t *testing.T) {
	r := start(t, func(c *Config) {
		dial := c.Dial
		c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if addr == "93.184.216.34:9" {
				<-ctx.Done()
				return nil, context.Cause(ctx)
			}
			return dial(ctx, network, addr)
		}
		c.Limits.Opening = 4
	})
	r.world.serve(t, "93.184.216.34:1", echo)
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for range 3 {
		wg.Go(func() { _, _ = r.guest.Dial(ctx, ap("93.184.216.34:9")) })
	}
	for r.Traffic().Connections < 3 {
		time.Sleep(time.Millisecond)
	}
	if !r.reach(t, "93.184.216.34:1") {
		t.Error("silent destinations stop others")
	}
	cancel()
	wg.Wait()
}

// A connection whose other end has no half-close ends with its first half.
func TestNoHalfClose(t *testing.T) {
	theirs := make(chan net.Conn, 1)
	r := start(t, func(c *Config) {
		c.Dial = func(context.Context, string, string) (net.Conn, error) {
			a, b := net.Pipe()
			theirs <- b
			return a, nil
		}
	})
	c, err := r.guest.Dial(soon(t), ap("93.184.216.34:1"))
	if err != nil {
		t.Fatal(err)
	}
	_ = c.CloseWrite()
	if _, err := (<-theirs).Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	if _, err := io.ReadAll(c); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Error(err)
	}
	_ = c.Close()
	r.idle(t)
}

func TestLivePolicy(t *testing.T) {
	r := start(t, func(c *Config) { c.Policy = Policy{Mode: All} })
	r.world.serve(t, "10.0.0.1:1", echo)
	r.world.serve(t, "93.184.216.34:1", echo)
	talk := func(c netstacktest.Conn) error {
		if _, err := c.Write([]byte("x")); err != nil {
			return err
		}
		_, err := io.ReadFull(c, make([]byte, 1))
		return err
	}
	var conns []netstacktest.Conn
	for _, to := range []string{"10.0.0.1:1", "93.184.216.34:1"} {
		c, err := r.guest.Dial(soon(t), ap(to))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		if err := talk(c); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	l, err := r.guest.Listen(80)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	in, err := r.Dial(soon(t), 80)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	if err := r.SetPolicy(Policy{}); err != nil {
		t.Fatal(err)
	}
	if _, err := conns[0].Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("what is no longer allowed: %v", err)
	}
	if d := r.denial(t); d.Addr != ap("10.0.0.1:1").Addr() {
		t.Error(d)
	}
	if err := talk(conns[1]); err != nil {
		t.Errorf("what is still allowed: %v", err)
	}
	if r.reach(t, "10.0.0.1:1") {
		t.Error("the old policy is in force")
	}
	if err := r.SetPolicy(Policy{Mode: None}); err != nil {
		t.Fatal(err)
	}
	if _, err := conns[1].Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("what is no longer allowed: %v", err)
	}
	if _, err := in.Write([]byte("x")); err != nil {
		t.Errorf("a connection into the guest: %v", err)
	}
	if err := r.SetPolicy(Policy{Mode: None, Allow: rules(t, "10.0.0.1:1")}); err != nil {
		t.Fatal(err)
	}
	if !r.reach(t, "10.0.0.1:1") || r.reach(t, "93.184.216.34:1") {
		t.Error("the new policy is not in force")
	}
}
