package netstack

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/internal/netstack/netstacktest"
)

// echoInGuest serves port 80 of the guest.
func (r *rig) echoInGuest(tb testing.TB) {
	tb.Helper()
	l, err := r.guest.Listen(80)
	if err != nil {
		tb.Fatal(err)
	}
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
				_, _ = io.Copy(c, c)
				_ = c.Close()
				conns.Delete(c)
			})
		}
	})
	tb.Cleanup(func() {
		_ = l.Close()
		l.(interface{ Shutdown() }).Shutdown()
		conns.Range(func(c, _ any) bool { return c.(net.Conn).Close() == nil || true })
		wg.Wait()
	})
}

func talk(c net.Conn, text string) error {
	if _, err := c.Write([]byte(text)); err != nil {
		return err
	}
	b := make([]byte, len(text))
	_, err := io.ReadFull(c, b)
	return err
}

// A dial into a paused guest obeys its context, and costs nothing but that: a dial
// that goes on is answered when the guest does.
func TestDialAPausedGuest(t *testing.T) {
	r := start(t)
	r.echoInGuest(t)
	r.guest.Pause()
	cause := errors.New("the client has gone")
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeoutCause(t.Context(), 30*time.Millisecond, cause)
			defer cancel()
			if c, err := r.Dial(ctx, 80); !errors.Is(err, cause) {
				t.Errorf("dial: %v, %v", c, err)
			}
		})
	}
	patient := make(chan error, 1)
	wg.Go(func() {
		c, err := r.Dial(soon(t), 80)
		if err == nil {
			err = talk(c, "hello")
			_ = c.Close()
		}
		patient <- err
	})
	time.Sleep(50 * time.Millisecond)
	if n := len(patient); n != 0 {
		t.Error("a paused guest answers")
	}
	resumed := time.Now()
	r.guest.Resume()
	if err := <-patient; err != nil {
		t.Error(err)
	}
	t.Logf("answered %v after the guest went on", time.Since(resumed))
	wg.Wait()
	r.idle(t)
}

// Nothing the stack does waits for a paused guest, and what it was sent before is
// there when it goes on.
func TestPausedInTheMiddle(t *testing.T) {
	r := start(t, func(c *Config) { c.Limits.Queue = 1 << 20 })
	r.echoInGuest(t)
	r.world.serve(t, "93.184.216.34:1", func(c *net.TCPConn) {
		_, _ = c.Write(make([]byte, 8<<20))
	})
	in, err := r.Dial(soon(t), 80)
	if err != nil {
		t.Fatal(err)
	}
	if err := talk(in, "before"); err != nil {
		t.Fatal(err)
	}
	out, err := r.guest.Dial(soon(t), ap("93.184.216.34:1"))
	if err != nil {
		t.Fatal(err)
	}
	r.guest.Pause()
	if _, err := in.Write([]byte("during")); err != nil {
		t.Fatal(err)
	}
	_ = in.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if _, err := in.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a paused guest answers: %v", err)
	}
	_ = in.SetReadDeadline(time.Time{})
	r.guest.Resume()
	if _, err := io.ReadFull(in, make([]byte, len("during"))); err != nil {
		t.Error(err)
	}
	_ = in.Close()
	if n, err := io.Copy(io.Discard, out); n != 8<<20 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	_ = out.Close()
}

// Connections stay over a detach: of a guest that is saved and started again.
func TestDetachAttach(t *testing.T) {
	r := start(t)
	r.echoInGuest(t)
	r.world.serve(t, "93.184.216.34:1", echo)
	in, err := r.Dial(soon(t), 80)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	out, err := r.guest.Dial(soon(t), ap("93.184.216.34:1"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	for range 3 {
		if err := errors.Join(talk(in, "in"), talk(out, "out")); err != nil {
			t.Fatal(err)
		}
		r.guest.Pause()
		r.Detach()
		r.Detach()
		waiting := make(chan error, 1)
		go func() {
			c, err := r.Dial(soon(t), 80)
			if err == nil {
				_ = c.Close()
			}
			waiting <- err
		}()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		if _, err := r.Dial(ctx, 80); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dial without a guest: %v", err)
		}
		cancel()
		host, guest := netstacktest.Pair(t)
		r.guest.Plug(guest)
		r.guest.Resume()
		r.Attach(host)
		if err := <-waiting; err != nil {
			t.Errorf("a dial that began without a guest: %v", err)
		}
	}
}

// Attach replaces, and tells when a connection has ended.
func TestAttachTwice(t *testing.T) {
	r := start(t)
	r.echoInGuest(t)
	var before <-chan struct{}
	for range 3 {
		host, guest := netstacktest.Pair(t)
		r.guest.Plug(guest)
		ended := r.Attach(host)
		if before != nil {
			select {
			case <-before:
			case <-time.After(patience):
				t.Error("the connection before has not ended")
			}
		}
		begun := time.Now()
		c, err := r.Dial(soon(t), 80)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("first dial: %v", time.Since(begun))
		_ = c.Close()
		select {
		case <-ended:
			t.Error("the connection has ended")
		default:
		}
		before = ended
	}
	host, guest := netstacktest.Pair(t)
	ended := r.Attach(host)
	_ = guest.Close()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Error("nobody was told that the connection has ended")
	}
}

func TestEndings(t *testing.T) {
	r := start(t)
	r.echoInGuest(t)
	r.world.serve(t, "93.184.216.34:1", echo)
	l, err := r.Listen(2049)
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan net.Conn, 10)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- c
		}
	}()
	open := func() (in, served net.Conn, out, workspace netstacktest.Conn) {
		var errs [3]error
		in, errs[0] = r.Dial(soon(t), 80)
		out, errs[1] = r.guest.Dial(soon(t), ap("93.184.216.34:1"))
		workspace, errs[2] = r.guest.Dial(soon(t), ap("192.168.127.1:2049"))
		if err := errors.Join(errs[:]...); err != nil {
			t.Fatal(err)
		}
		return in, <-accepted, out, workspace
	}
	dead := func(what string, c net.Conn) {
		t.Helper()
		_ = c.SetReadDeadline(time.Now().Add(patience))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.ECONNABORTED) {
			t.Errorf("%s: %v", what, err)
		}
		_ = c.Close()
	}
	in, host, out, workspace := open()
	r.CloseInbound()
	dead("inbound after CloseInbound", in)
	if err := talk(out, "x"); err != nil {
		t.Errorf("outbound after CloseInbound: %v", err)
	}
	r.Reset()
	dead("outbound after Reset", out)
	dead("the workspace after Reset", workspace)
	dead("the host's end of the workspace", host)
	r.idle(t)

	in, host, out, workspace = open()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
	dead("inbound after Close", in)
	dead("the host's end of the workspace after Close", host)
	if _, ok := <-accepted; ok {
		t.Error("a listener outlives its network")
	}
	_, _ = out.Close(), workspace.Close()
	if _, err := r.Dial(soon(t), 80); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Dial after Close: %v", err)
	}
	if _, err := r.Listen(2050); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Listen after Close: %v", err)
	}
	wire, _ := netstacktest.Pair(t)
	select {
	case <-r.Attach(wire):
	case <-time.After(patience):
		t.Error("Attach after Close")
	}
	r.Detach()
	r.Reset()
	if err := r.SetPolicy(Policy{}); err != nil {
		t.Error(err)
	}
}

// Close does not wait for a guest that is in the middle of a handshake.
func TestCloseInAHandshake(t *testing.T) {
	dialing, goOn := make(chan struct{}), make(chan struct{})
	r := start(t, func(c *Config) {
		c.Dial = func(context.Context, string, string) (net.Conn, error) {
			a, b := net.Pipe()
			_ = b.Close()
			close(dialing)
			<-goOn
			return a, nil
		}
	})
	go func() { _, _ = r.guest.Dial(soon(t), ap("93.184.216.34:1")) }()
	<-dialing
	r.guest.Pause()
	close(goOn)
	time.Sleep(10 * time.Millisecond) // long enough for most runs to be within the handshake
	begun := time.Now()
	_ = r.Close()
	if took := time.Since(begun); took > patience {
		t.Errorf("Close took %v", took)
	}
}
