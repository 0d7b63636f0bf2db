package port

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/xfeldman/aegisvm/internal/guest/ring"
	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// ErrNoHost is what Device.Read returns once when the host has gone.
var ErrNoHost = errors.New("no host is connected")

// Device is the byte channel to the host.
type Device interface {
	// Read blocks until bytes have come. A device that sees the host go returns
	// ErrNoHost once; the next Read waits for its return. Every other error is final.
	Read(p []byte) (int, error)
	// Write writes all of p; it blocks while no host reads.
	Write(p []byte) (int, error)
	// SetWriteDeadline frees a Write that is blocked.
	SetWriteDeadline(t time.Time) error
}

const (
	// window is how much input waits for a session; yamux drains it all the time.
	window = 256 << 10
	// patience is how long a session may leave its input untouched before it counts
	// as broken. Without it, a session that hangs would hide the next opening.
	patience = 10 * time.Second
)

var (
	past  = time.Unix(1, 0)
	never time.Time
)

// Port runs sessions over a device.
type Port struct {
	dev Device

	mu   sync.Mutex
	scan guestproto.Scanner

	// Only Run's goroutine touches these.
	nonce guestproto.Nonce
	cur   *Session
}

// New returns a port on which openings carry magic.
func New(dev Device, magic guestproto.Magic) *Port {
	return &Port{dev: dev, scan: guestproto.Scanner{Magic: magic}}
}

// Rekey accepts next as a magic too, until Confirm or the first opening with it.
// Then it is the only one.
func (p *Port) Rekey(next guestproto.Magic) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.scan.Next = nil; next != p.scan.Magic {
		p.scan.Next = &next
	}
}

// Confirm says that the host knows that Rekey was done.
func (p *Port) Confirm() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.scan.Next != nil {
		p.scan.Magic, p.scan.Next = *p.scan.Next, nil
	}
}

// Run reads the device until it fails for good. It calls serve in a goroutine of
// its own for every session; serve must return soon after the session's Read or
// Write has failed. Run returns when the last serve has.
func (p *Port) Run(serve func(*Session)) error {
	defer p.end()
	buf := make([]byte, window)
	for {
		n, err := p.dev.Read(buf)
		if feedErr := p.feed(buf[:n], serve); feedErr != nil {
			return feedErr
		}
		switch {
		case errors.Is(err, ErrNoHost):
			p.end()
		case err != nil:
			return fmt.Errorf("read the host's pipe: %w", err)
		}
	}
}

// feed gives input to the session it belongs to.
func (p *Port) feed(in []byte, serve func(*Session)) error {
	for len(in) > 0 {
		p.mu.Lock()
		before, found, rest := p.scan.Scan(in)
		p.mu.Unlock()
		if p.cur != nil && len(before) > 0 {
			p.cur.take(before)
		}
		if found != nil && (p.cur == nil || found.Nonce != p.nonce) {
			if err := p.begin(found, serve); err != nil {
				return err
			}
		}
		in = rest
	}
	return nil
}

func (p *Port) begin(found *guestproto.Found, serve func(*Session)) error {
	p.end()
	p.mu.Lock()
	if p.scan.Next != nil && found.Magic == *p.scan.Next {
		p.scan.Magic, p.scan.Next = found.Magic, nil
	}
	p.mu.Unlock()
	if _, err := p.dev.Write(guestproto.Opening(found.Magic, found.Nonce)); err != nil {
		return fmt.Errorf("answer the host's opening: %w", err)
	}
	s := &Session{dev: p.dev, in: ring.New(window), done: make(chan struct{})}
	p.nonce, p.cur = found.Nonce, s
	go func() { // end waits for it
		defer close(s.done)
		serve(s)
	}()
	return nil
}

// end ends the session, if there is one, and waits until nothing of it writes.
func (p *Port) end() {
	if p.cur == nil {
		return
	}
	_ = p.cur.Close()
	<-p.cur.done
	_ = p.dev.SetWriteDeadline(never) // devices that have no deadlines do not block either
	p.cur = nil
}

// Session is one life of the pipe, as yamux sees it.
type Session struct {
	dev  Device
	in   *ring.Buffer
	done chan struct{}

	mu     sync.Mutex
	closed bool
}

// take hands input over. A session that does not drain it is broken, and is closed.
func (s *Session) take(b []byte) {
	s.in.SetWriteDeadline(time.Now().Add(patience))
	if _, err := s.in.Write(b); err != nil {
		_ = s.Close()
	}
}

// Read implements io.Reader.
func (s *Session) Read(b []byte) (int, error) { return s.in.Read(b) }

// Write implements io.Writer. It blocks while the host does not read.
func (s *Session) Write(b []byte) (int, error) {
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return 0, io.ErrClosedPipe
	}
	return s.dev.Write(b)
}

// Close ends the session: reads and writes fail, also those that are blocked.
func (s *Session) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.in.Close(nil)
	return s.dev.SetWriteDeadline(past)
}
