package fake

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// ErrNoHost is what a Port's Read returns once when the host has gone. The next
// Read waits for a host.
var ErrNoHost = errors.New("no host is connected")

// capacity is how many bytes lie in each direction of a wire.
const capacity = 128 << 10

// wire joins a host and a guest. Only one host is on it at a time.
type wire struct {
	free   chan struct{} // holds a token while no host is connected
	frames bool          // what the guest writes for no host is dropped, as a network card does

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at every change
	toGuest []byte
	toHost  []byte
	host    *hostEnd // nil while there is none
	left    bool     // a host has gone, and the guest was not told
	paused  bool
	ended   bool
}

func newWire(frames bool) *wire {
	w := &wire{free: make(chan struct{}, 1), frames: frames, changed: make(chan struct{})}
	w.free <- struct{}{}
	return w
}

// update makes a change and wakes whoever waits for one.
func (w *wire) update(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
	close(w.changed)
	w.changed = make(chan struct{})
}

// wait calls try, under the lock, after every change until it is done or the
// deadline has passed.
func (w *wire) wait(d *deadline, try func() (done bool)) error {
	for {
		late := d.passed()
		select {
		case <-late:
			return os.ErrDeadlineExceeded
		default:
		}
		w.mu.Lock()
		done, changed := try(), w.changed
		w.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-late:
		}
	}
}

// connect puts a host on the wire, whose free token it has.
func (w *wire) connect() net.Conn {
	h := &hostEnd{wire: w}
	w.update(func() { w.host = h })
	return h
}

func (w *wire) setPaused(paused bool) { w.update(func() { w.paused = paused }) }

// end breaks both ends.
func (w *wire) end() { w.update(func() { w.ended = true }) }

// drop disconnects the host that is there, as the end of its process would.
func (w *wire) drop() {
	w.mu.Lock()
	h := w.host
	w.mu.Unlock()
	if h != nil {
		_ = h.Close() // always nil
	}
}

// move appends what fits of p to a queue.
func move(queue *[]byte, p []byte) int {
	n := min(len(p), capacity-len(*queue))
	*queue = append(*queue, p[:n]...)
	return n
}

// take moves the beginning of a queue to p.
func take(queue *[]byte, p []byte) int {
	n := copy(p, *queue)
	*queue = append((*queue)[:0], (*queue)[n:]...)
	return n
}

// Port is the guest's end of a wire. It is a net.Conn's Read, Write, Close and
// SetWriteDeadline.
type Port struct {
	wire  *wire
	write deadline
}

// Read waits for bytes of a host. It returns ErrNoHost once when a host has gone,
// and io.EOF when the machine has ended.
func (p *Port) Read(b []byte) (n int, err error) {
	w := p.wire
	waited := w.wait(nil, func() bool {
		switch {
		case w.ended:
			err = io.EOF
		case w.paused:
			return false
		case len(w.toGuest) > 0:
			n = take(&w.toGuest, b)
		case w.left:
			w.left, err = false, ErrNoHost
		default:
			return false
		}
		return true
	})
	if n > 0 {
		w.update(func() {})
	}
	return n, errors.Join(waited, err)
}

// Write writes all of b. It blocks while no host is there, or none that reads; a
// network card drops what has no host.
func (p *Port) Write(b []byte) (n int, err error) {
	w := p.wire
	for n < len(b) && err == nil {
		moved := 0
		waited := w.wait(&p.write, func() bool {
			switch {
			case w.ended:
				err = io.ErrClosedPipe
			case w.paused:
				return false
			case w.host == nil && w.frames:
				n = len(b)
			case w.host == nil || len(w.toHost) >= capacity:
				return false
			default:
				moved = move(&w.toHost, b[n:])
			}
			return true
		})
		if waited != nil {
			return n, waited
		}
		if moved > 0 {
			n += moved
			w.update(func() {})
		}
	}
	return n, err
}

// SetWriteDeadline frees a Write that is blocked, and the later ones.
func (p *Port) SetWriteDeadline(t time.Time) error {
	p.write.set(t)
	return nil
}

// Close ends the port for good: the guest hears nothing more.
func (p *Port) Close() error {
	p.wire.end()
	return nil
}

// hostEnd is one connection of a host. It implements net.Conn.
type hostEnd struct {
	wire        *wire
	read, write deadline
	once        sync.Once
}

func (h *hostEnd) Read(b []byte) (n int, err error) {
	w := h.wire
	waited := w.wait(&h.read, func() bool {
		switch {
		case w.host != h:
			err = net.ErrClosed
		case len(w.toHost) > 0:
			n = take(&w.toHost, b)
		case w.ended:
			err = io.EOF
		default:
			return len(b) == 0
		}
		return true
	})
	if n > 0 {
		w.update(func() {})
	}
	if waited != nil {
		return 0, waited
	}
	return n, err
}

func (h *hostEnd) Write(b []byte) (n int, err error) {
	w := h.wire
	for n < len(b) && err == nil {
		moved := 0
		waited := w.wait(&h.write, func() bool {
			switch {
			case w.host != h:
				err = net.ErrClosed
			case w.ended:
				err = syscall.EPIPE
			case len(w.toGuest) >= capacity:
				return false
			default:
				moved = move(&w.toGuest, b[n:])
			}
			return true
		})
		if waited != nil {
			return n, waited
		}
		if moved > 0 {
			n += moved
			w.update(func() {})
		}
	}
	return n, err
}

// Close disconnects. What the guest has not read is lost.
func (h *hostEnd) Close() error {
	h.once.Do(func() {
		h.wire.update(func() { h.wire.host, h.wire.left, h.wire.toGuest = nil, true, nil })
		h.wire.free <- struct{}{}
	})
	return nil
}

func (h *hostEnd) SetDeadline(t time.Time) error {
	h.read.set(t)
	h.write.set(t)
	return nil
}

func (h *hostEnd) SetReadDeadline(t time.Time) error {
	h.read.set(t)
	return nil
}

func (h *hostEnd) SetWriteDeadline(t time.Time) error {
	h.write.set(t)
	return nil
}

func (h *hostEnd) LocalAddr() net.Addr  { return address{} }
func (h *hostEnd) RemoteAddr() net.Addr { return address{} }

type address struct{}

func (address) Network() string { return "fake" }
func (address) String() string  { return "fake" }
