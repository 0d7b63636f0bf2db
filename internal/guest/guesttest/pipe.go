package guesttest

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/xfeldman/aegisvm/internal/guest/port"
	"github.com/xfeldman/aegisvm/internal/guest/ring"
)

// Pipe is a virtio-serial port in memory, with its bad habits: what one host has
// written still reaches the guest after that host has gone, what the guest has
// written for it reaches the next host, and a change of hosts may go unnoticed.
type Pipe struct {
	// Coalesce hides the change of hosts from the guest, as a fast reconnect or a
	// paused VM does.
	Coalesce bool
	// Lose is called for what lies in the pipe when a host goes; it returns what is
	// left of it. Nil keeps all.
	Lose func([]byte) []byte

	slot    chan struct{} // holds a token while no host is connected
	toGuest *ring.Buffer
	toHost  *ring.Buffer

	mu     sync.Mutex
	gone   bool          // a host went, and the guest has not been told
	here   bool          // a host is connected
	change chan struct{} // closed and replaced when one of the above changes
	paused chan struct{} // not nil while paused; closed by Resume
}

// queue is how much fits into each direction.
const queue = 128 << 10

// NewPipe returns a pipe with nobody on it.
func NewPipe() *Pipe {
	p := &Pipe{slot: make(chan struct{}, 1), toGuest: ring.New(queue), toHost: ring.New(queue), change: make(chan struct{})}
	p.slot <- struct{}{}
	return p
}

// Dial connects a host. A second waits until the first has gone, or for ctx.
func (p *Pipe) Dial(ctx context.Context) (net.Conn, error) {
	select {
	case <-p.slot:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	p.toHost.SetReadDeadline(time.Time{})
	p.toGuest.SetWriteDeadline(time.Time{})
	p.update(func() {
		// A guest that has not noticed the end of the host before does not any more: it
		// must not take it for the end of this one.
		p.here, p.gone = true, false
		p.toGuest.SetReadDeadline(time.Time{})
	})
	return &hostEnd{pipe: p}, nil
}

// Device returns the guest's end.
func (p *Pipe) Device() Device { return (*device)(p) }

// Pause stops the guest's reads and writes, as a stopped vCPU does.
func (p *Pipe) Pause() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.paused == nil {
		p.paused = make(chan struct{})
	}
}

// Resume lets them go on.
func (p *Pipe) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.paused != nil {
		close(p.paused)
		p.paused = nil
	}
}

// Close breaks both ends, as the end of the VM does.
func (p *Pipe) Close() {
	p.Resume()
	p.toGuest.Close(io.ErrClosedPipe)
	p.toHost.Close(nil)
	p.update(func() {})
}

func (p *Pipe) update(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	close(p.change)
	p.change = make(chan struct{})
}

func (p *Pipe) waitUnpaused() {
	p.mu.Lock()
	paused := p.paused
	p.mu.Unlock()
	if paused != nil {
		<-paused
	}
}

// lose drops bytes that lie in b, as a disconnect may.
func (p *Pipe) lose(b *ring.Buffer) {
	if p.Lose != nil {
		_, _ = b.Write(p.Lose(b.Take())) // there is room: it was in there
	}
}

// hostEnd is one connection of a host.
type hostEnd struct {
	pipe *Pipe
	once sync.Once
	ops  sync.WaitGroup // calls in progress: the next host must not meet them
	mu   sync.Mutex
	shut bool
}

// while runs f unless the connection is closed.
func (h *hostEnd) while(f func()) error {
	h.mu.Lock()
	if h.shut {
		h.mu.Unlock()
		return net.ErrClosed
	}
	h.ops.Add(1)
	h.mu.Unlock()
	defer h.ops.Done()
	f()
	return nil
}

func (h *hostEnd) isShut() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.shut
}

func (h *hostEnd) Read(b []byte) (n int, err error) {
	if shut := h.while(func() { n, err = h.pipe.toHost.Read(b) }); shut != nil {
		return 0, shut
	}
	return n, h.translate(err)
}

func (h *hostEnd) Write(b []byte) (n int, err error) {
	if shut := h.while(func() { n, err = h.pipe.toGuest.Write(b) }); shut != nil {
		return 0, shut
	}
	return n, h.translate(err)
}

func (h *hostEnd) translate(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) && h.isShut() {
		return net.ErrClosed
	}
	return err
}

// Close disconnects the host. The guest is told, unless the pipe coalesces.
func (h *hostEnd) Close() error {
	h.once.Do(func() {
		p := h.pipe
		h.mu.Lock()
		h.shut = true
		h.mu.Unlock()
		p.toHost.SetReadDeadline(time.Unix(1, 0))
		p.toGuest.SetWriteDeadline(time.Unix(1, 0))
		h.ops.Wait()
		p.lose(p.toGuest)
		p.update(func() { p.here, p.gone = false, !p.Coalesce })
		if !p.Coalesce {
			p.toGuest.SetReadDeadline(time.Unix(1, 0))
		}
		p.slot <- struct{}{}
	})
	return nil
}

func (h *hostEnd) SetDeadline(t time.Time) error {
	return errors.Join(h.SetReadDeadline(t), h.SetWriteDeadline(t))
}

func (h *hostEnd) SetReadDeadline(t time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.shut {
		return net.ErrClosed
	}
	h.pipe.toHost.SetReadDeadline(t)
	return nil
}

func (h *hostEnd) SetWriteDeadline(t time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.shut {
		return net.ErrClosed
	}
	h.pipe.toGuest.SetWriteDeadline(t)
	return nil
}

func (h *hostEnd) LocalAddr() net.Addr  { return addr{} }
func (h *hostEnd) RemoteAddr() net.Addr { return addr{} }

type addr struct{}

func (addr) Network() string { return "guesttest" }
func (addr) String() string  { return "guesttest" }

// device is a Pipe as the guest sees it.
type device Pipe

func (d *device) Read(b []byte) (int, error) {
	p := (*Pipe)(d)
	for {
		p.waitUnpaused()
		n, err := p.toGuest.Read(b)
		p.waitUnpaused() // the bytes reach a paused guest when it runs again
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		// A host went: its last bytes were read before.
		p.toGuest.SetReadDeadline(time.Time{})
		p.mu.Lock()
		gone := p.gone
		p.gone = false
		p.mu.Unlock()
		if gone {
			return n, port.ErrNoHost
		}
	}
}

// Write blocks while no host is connected.
func (d *device) Write(b []byte) (int, error) {
	p := (*Pipe)(d)
	p.waitUnpaused()
	return p.toHost.Write(b)
}

func (d *device) SetWriteDeadline(t time.Time) error {
	d.toHost.SetWriteDeadline(t)
	return nil
}

func (d *device) Close() error {
	(*Pipe)(d).Close()
	return nil
}
