package guestlink

import (
	"io"
	"net"
	"testing"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/guest/guesttest"
)

// call connects to a guest's own address and says a line.
func call(t *testing.T, to net.Listener, line string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", to.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if _, err := io.WriteString(c, line); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

func heard(t *testing.T, from io.Reader, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if _, err := io.ReadFull(from, b); err != nil || string(b) != want {
		t.Fatalf("heard %q, %v; want %q", b, err, want)
	}
}

func TestAcceptAPI(t *testing.T) {
	ln := listen(t)
	r := newRig(t, guesttest.Options{API: ln})
	c := call(t, ln, "early") // before there is a host: it waits
	l := r.open(t)
	for _, line := range []string{"early", "second"} {
		if line != "early" {
			c = call(t, ln, line)
		}
		conn, err := l.AcceptAPI(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		heard(t, conn, line)
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if rest, err := io.ReadAll(conn); err != nil || len(rest) > 0 {
			t.Errorf("after the client's end: %q, %v", rest, err)
		}
		if _, err := io.WriteString(conn, "answer"); err != nil {
			t.Fatal(err)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		if got, err := io.ReadAll(c); err != nil || string(got) != "answer" {
			t.Errorf("the client got %q, %v", got, err)
		}
	}
}

// Whoever waits goes on over broken sessions.
func TestAcceptAPIOverSessions(t *testing.T) {
	ln := listen(t)
	r := newRig(t, guesttest.Options{API: ln})
	l := r.open(t)
	accepted := make(chan net.Conn)
	go func() {
		defer close(accepted)
		for range 3 {
			conn, err := l.AcceptAPI(t.Context())
			if err != nil {
				t.Errorf("accept: %v", err)
				return
			}
			accepted <- conn
		}
	}()
	for i := range 3 {
		r.cut()
		if _, err := l.Stats(t.Context()); err != nil { // in the next session
			t.Fatal(err)
		}
		c := call(t, ln, "hello")
		conn := <-accepted
		if conn == nil {
			return
		}
		heard(t, conn, "hello")
		if i == 1 { // the session's end is the connection's
			r.cut()
			if b, err := io.ReadAll(c); len(b) > 0 {
				t.Errorf("after a broken session: %q, %v", b, err)
			}
		}
		_ = conn.Close()
	}
}

// A client that never closes its end holds neither the guest's connection nor the host's
// stream.
func TestAPIConnsEnd(t *testing.T) {
	ln := listen(t)
	r := newRig(t, guesttest.Options{API: ln})
	l := r.open(t)
	for range 2 * maxAPIConns {
		c := call(t, ln, "x")
		conn, err := l.AcceptAPI(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, c) // it ends: with EOF, or a reset as nobody has read the x
	}
}

func TestAcceptAPIWithoutAbility(t *testing.T) {
	l := newRig(t, guesttest.Options{}).open(t)
	if _, err := l.AcceptAPI(t.Context()); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("a guest that knows no Guest API: %v", err)
	}
}
