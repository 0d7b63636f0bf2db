package router

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/xfeldman/aegisvm/internal/instance"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// limit bounds what must happen; it decides no test that passes.
const limit = 60 * time.Second

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// tcpGuest is a connection to a program that runs on the host instead of in a guest.
type tcpGuest struct {
	net.Conn // no more of it than a guest's has
}

func (g tcpGuest) CloseWrite() error { return g.Conn.(*net.TCPConn).CloseWrite() }
func (g tcpGuest) Abort()            { abort(g.Conn.(*net.TCPConn)) }
func (g tcpGuest) Gone() context.Context {
	return context.Background() // a test that needs its end has another guest
}

func dialTCP(ctx context.Context, addr string) (instance.GuestConn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return tcpGuest{c}, nil
}

// program serves TCP connections on a port of the host until the test ends, and
// returns its address.
func program(tb testing.TB, serve func(*net.TCPConn)) string {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(tb, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close() //nolint:errcheck // a test's
				_ = c.SetDeadline(time.Now().Add(limit))
				serve(c.(*net.TCPConn))
			})
		}
	})
	tb.Cleanup(func() {
		_ = ln.Close()
		wg.Wait()
	})
	return ln.Addr().String()
}

// echo answers with what it hears. It does not let the kernel do it: splice(2) from a
// socket to itself can wait for ever.
func echo(c *net.TCPConn) {
	_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
}

// to connects to a program, as if in a guest that is awake.
func to(addr string) instance.Connect {
	return func(ctx context.Context) (instance.GuestConn, error) { return dialTCP(ctx, addr) }
}

// open opens a door on any port of 127.0.0.1 until the test ends.
func open(tb testing.TB, d Doors, connect instance.Connect) *door {
	tb.Helper()
	d.Log = slog.New(slog.DiscardHandler)
	out, err := d.Open(netip.MustParseAddrPort("127.0.0.1:0"), connect)
	must(tb, err)
	tb.Cleanup(func() {
		_ = out.Close()
		out.Wait()
	})
	return out.(*door)
}

// visit comes to a door as a client.
func visit(tb testing.TB, d *door) *net.TCPConn {
	tb.Helper()
	c, err := net.Dial("tcp", d.ln.Addr().String())
	must(tb, err)
	tb.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(limit))
	return c.(*net.TCPConn)
}

// wait returns what comes over c.
func wait[T any](tb testing.TB, c <-chan T) T {
	tb.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(limit):
		tb.Fatal("nothing happened")
		panic("unreachable")
	}
}

// usage counts goroutines and, where the system tells, open descriptors.
func usage() (goroutines, descriptors int) {
	entries, _ := os.ReadDir("/proc/self/fd")
	return runtime.NumGoroutine(), len(entries)
}

// noGrowth runs do many times and checks that this leaves nothing behind.
func noGrowth(t *testing.T, times int, do func()) {
	t.Helper()
	for range 10 { // whatever is kept for later
		do()
	}
	g0, d0 := usage()
	for range times {
		do()
	}
	for deadline := time.Now().Add(limit); ; {
		g, d := usage()
		if g <= g0+5 && d <= d0+5 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("from %d goroutines and %d descriptors to %d and %d", g0, d0, g, d)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
