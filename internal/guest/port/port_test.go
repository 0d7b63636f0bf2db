package port

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xfeldman/aegisvm/internal/guest/ring"
	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// fakeDevice is a device with a host that writes in and reads out. A gone host is a
// byte slice of nil in in.
type fakeDevice struct {
	in  chan []byte
	out *ring.Buffer
}

func (d *fakeDevice) Read(p []byte) (int, error) {
	b, ok := <-d.in
	switch {
	case !ok:
		return 0, io.ErrClosedPipe
	case b == nil:
		return 0, ErrNoHost
	}
	return copy(p, b), nil
}

func (d *fakeDevice) Write(p []byte) (int, error) { return d.out.Write(p) }

func (d *fakeDevice) SetWriteDeadline(t time.Time) error {
	d.out.SetWriteDeadline(t)
	return nil
}

// host drives a port in a test.
type host struct {
	t     *testing.T
	dev   *fakeDevice
	port  *Port
	magic guestproto.Magic
	ended chan error

	mu       sync.Mutex
	sessions []*Session
}

func newHost(t *testing.T, serve func(*Session)) *host {
	t.Helper()
	h := &host{t: t, dev: &fakeDevice{in: make(chan []byte), out: ring.New(1000)}, magic: guestproto.NewMagic(), ended: make(chan error, 1)}
	h.port = New(h.dev, h.magic)
	go func() {
		h.ended <- h.port.Run(func(s *Session) {
			h.mu.Lock()
			h.sessions = append(h.sessions, s)
			h.mu.Unlock()
			serve(s)
		})
	}()
	return h
}

func (h *host) close() {
	close(h.dev.in)
	if err := <-h.ended; !errors.Is(err, io.ErrClosedPipe) {
		h.t.Errorf("Run = %v", err)
	}
}

func (h *host) expect(want []byte) {
	h.t.Helper()
	got := make([]byte, len(want))
	for n := 0; n < len(got); {
		m, err := h.dev.out.Read(got[n:])
		if err != nil {
			h.t.Fatal(err)
		}
		n += m
	}
	if !bytes.Equal(got, want) {
		h.t.Fatalf("the host got %q, want %q", got, want)
	}
}

func (h *host) count() int {
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.sessions)
}

func echoAll(s *Session) { _, _ = io.Copy(s, s) }

func TestSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, echoAll)
		h.dev.in <- []byte("bytes of no session")
		first := guestproto.Opening(h.magic, guestproto.NewNonce())
		h.dev.in <- first[:13]
		h.dev.in <- first[13:]
		h.expect(first)
		h.dev.in <- first // the host repeats itself
		h.dev.in <- []byte("hello")
		h.expect([]byte("hello"))
		if n := h.count(); n != 1 {
			t.Errorf("%d sessions", n)
		}
		second := guestproto.Opening(h.magic, guestproto.NewNonce())
		h.dev.in <- append([]byte("xy"), second...)
		synctest.Wait()
		out := make([]byte, 100)
		n, _ := h.dev.out.Read(out) // perhaps the old session's last words, then the echo
		if !bytes.HasSuffix(out[:n], second) {
			t.Errorf("the host got %q", out[:n])
		}
		h.dev.in <- []byte("again")
		h.expect([]byte("again"))
		h.dev.in <- nil // the host goes
		if n := h.count(); n != 2 {
			t.Errorf("%d sessions", n)
		}
		if _, err := h.sessions[1].Write([]byte("x")); err == nil {
			t.Error("a session outlived its host")
		}
		h.dev.in <- second // the same again, after the host went: stale, or a host that is back
		h.expect(second)
		h.close()
	})
}

// A new opening frees a session whose writer is stuck, and nothing of it comes after
// the echo.
func TestStuckWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, func(s *Session) {
			for {
				if _, err := s.Write(bytes.Repeat([]byte("old"), 1000)); err != nil {
					return
				}
			}
		})
		first := guestproto.Opening(h.magic, guestproto.NewNonce())
		h.dev.in <- first
		synctest.Wait() // the device is full
		second := guestproto.Opening(h.magic, guestproto.NewNonce())
		go func() { h.dev.in <- second }()
		var got []byte
		buf := make([]byte, 100)
		for !bytes.Contains(got, second) {
			n, err := h.dev.out.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, buf[:n]...)
		}
		h.dev.in <- nil
		h.close()
	})
}

// A session that leaves its input untouched does not hide the next opening for ever.
func TestSessionThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, func(s *Session) {
			for { // it looks whether it has ended, and reads nothing
				if _, err := s.Write(nil); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		})
		first := guestproto.Opening(h.magic, guestproto.NewNonce())
		h.dev.in <- first
		h.expect(first)
		begun := time.Now()
		for range 3 {
			h.dev.in <- make([]byte, window)
		}
		second := guestproto.Opening(h.magic, guestproto.NewNonce())
		h.dev.in <- second
		h.expect(second)
		if took := time.Since(begun); took < patience || took > patience+time.Second {
			t.Errorf("it took %v", took)
		}
		h.close()
	})
}

func TestRekey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, echoAll)
		open := func(m guestproto.Magic, works bool) {
			t.Helper()
			before := h.count()
			o := guestproto.Opening(m, guestproto.NewNonce())
			h.dev.in <- o
			if got := h.count() > before; got != works {
				t.Fatalf("an opening worked: %v, want %v", got, works)
			}
			buf := make([]byte, 1000)
			for h.dev.out.Len() > 0 {
				_, _ = h.dev.out.Read(buf)
			}
		}
		next, other := guestproto.NewMagic(), guestproto.NewMagic()
		open(h.magic, true)
		h.port.Rekey(next)
		open(h.magic, true) // the Welcome was lost: the host knows only the old one
		h.port.Rekey(other)
		open(next, false)
		h.port.Rekey(next)
		open(next, true) // the host knows: only the new one is good from now on
		open(h.magic, false)
		h.port.Rekey(other)
		h.port.Confirm()
		open(next, false)
		open(other, true)
		h.close()
	})
}
