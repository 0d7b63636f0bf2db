package instance

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// Networks makes the host's ends of VMs' networks. Package netstack implements it.
type Networks interface {
	// Open makes the network of one machine. tell is called with lines for the
	// instance's log, such as what the guest was denied; it may take its time.
	Open(id ID, spec Spec, tell func(line string)) (Network, error)
}

// Network is the host's end of one machine's network.
type Network interface {
	// Attach joins the network card of a machine: conn is what its AttachNetwork
	// returned, and belongs to the Network from here on.
	Attach(conn net.Conn)

	// Dial connects to a port of the guest. An error is a syscall.ECONNREFUSED when
	// nothing listens there. The connection has CloseWrite.
	Dial(ctx context.Context, port uint16) (net.Conn, error)

	// Listen listens on a port of the gateway, for the guest.
	Listen(port uint16) (net.Listener, error)

	// Close ends the network with all its connections, and waits for what it started.
	Close() error
}

// GuestConn is a connection into a guest.
type GuestConn interface {
	net.Conn
	CloseWrite() error
}

// The pauses between attempts to reach a program that has just been started and does
// not listen yet.
const (
	minRedial = 5 * time.Millisecond
	maxRedial = 50 * time.Millisecond
)

// plug gives the run's machine its network, which ends with the machine.
func (a *actor) plug(ctx context.Context, l *live) error {
	if a.world.Networks == nil {
		return nil
	}
	n, err := a.world.Networks.Open(a.id, a.spec, func(line string) { a.remark("%s", line) })
	if err != nil {
		return fmt.Errorf("network of %s: %w", a.id, err)
	}
	b := l.current()
	a.ops.Go(func() {
		select {
		case <-b.over:
		case <-a.left:
		}
		l.wires.hangUp()
		_ = n.Close() // its connections end with the machine anyway
	})
	l.equip(b, n)
	conn, err := b.machine.AttachNetwork(ctx)
	if err != nil {
		return fmt.Errorf("network of %s: %w", a.id, err)
	}
	n.Attach(conn)
	return nil
}

// wires are the connections of clients into one machine. They end together when the
// user stops it.
type wires struct {
	mu    sync.Mutex
	conns map[*wire]bool
	hung  chan struct{}   // closed and replaced by hangUp
	heard map[uint16]bool // ports that have answered since the program's start
}

func newWires() wires {
	return wires{conns: map[*wire]bool{}, hung: make(chan struct{}), heard: map[uint16]bool{}}
}

// wire is one connection into a guest.
type wire struct {
	GuestConn

	of   *wires
	once sync.Once
	free func() // gives back what was held for it; nil is nothing
}

// Close ends the connection. Calling it again does nothing.
func (w *wire) Close() error {
	err := net.ErrClosed
	w.once.Do(func() {
		w.of.mu.Lock()
		delete(w.of.conns, w)
		w.of.mu.Unlock()
		err = w.GuestConn.Close()
		if w.free != nil {
			w.free()
		}
	})
	return err
}

// hangUp ends all connections, and attempts to make some.
func (w *wires) hangUp() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		_ = c.GuestConn.Close() // whoever relays it sees the end, and closes the wire
	}
	close(w.hung)
	w.hung = make(chan struct{})
}

func (w *wires) until() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.hung
}

// add takes a connection in, unless all were hung up since that was asked for.
func (w *wires) add(c GuestConn, port uint16, hung <-chan struct{}) (*wire, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-hung:
		_ = c.Close() // nobody has it
		return nil, ErrSuperseded
	default:
	}
	w.heard[port] = true
	out := &wire{GuestConn: c, of: w}
	w.conns[out] = true
	return out, nil
}

func (w *wires) hasHeard(port uint16) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.heard[port]
}

// equip gives a machine of the run its network.
func (l *live) equip(b *body, n Network) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b.network = n
}

// net returns the network of the run's machine.
func (l *live) net() (Network, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.body == nil:
		return nil, ErrSuperseded // it was put to sleep
	case l.body.network == nil:
		return nil, fault.New(fault.Unavailable, "the VM has no network")
	}
	return l.body.network, nil
}

// dialPort connects to a port of the guest. A program that has just been started is
// given time to listen.
func (l *live) dialPort(ctx context.Context, port uint16) (*wire, error) {
	hung := l.wires.until()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := make(chan struct{})
	defer close(stop)
	go func() { // ends with this call
		select {
		case <-hung:
			cancel(ErrSuperseded)
		case <-stop:
		}
	}()
	for wait := minRedial; ; wait = min(2*wait, maxRedial) {
		c, err := l.dialOnce(ctx, port)
		if err == nil {
			return l.wires.add(c, port, hung)
		}
		if !errors.Is(err, syscall.ECONNREFUSED) || l.wires.hasHeard(port) || time.Since(l.started) > l.patience {
			return nil, err
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, fault.Wrap(fault.KindOf(context.Cause(ctx)), err, "nothing listens on port %d yet", port).By(fault.Program)
		}
	}
}

// dialOnce tries the guest's network, and behind that its loopback, where programs
// listen that were not written to be reached.
func (l *live) dialOnce(ctx context.Context, port uint16) (GuestConn, error) {
	n, err := l.net()
	if err != nil {
		return nil, err
	}
	c, err := n.Dial(ctx, port)
	if errors.Is(err, syscall.ECONNREFUSED) {
		var inner error
		if c, inner = l.guest.Dial(ctx, net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port)))); inner != nil && fault.KindOf(inner) != fault.Unavailable {
			err = inner
		} else if inner == nil {
			err = nil
		}
	}
	switch {
	case err == nil:
		return c.(GuestConn), nil //nolint:forcetypeassert // both kinds have CloseWrite, by contract
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil, fault.Wrap(fault.Unavailable, err, "nothing listens on port %d in the VM", port).By(fault.Program)
	}
	return nil, err
}

// Awake keeps an instance awake for as long as somebody talks to it.
type Awake struct {
	live *live
	give func()
}

// Awake wakes an instance and holds it awake until Release. owner says for what, to
// people.
func (s *Set) Awake(ctx context.Context, ref, owner string) (*Awake, error) {
	a, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	w, err := a.awake(ctx, owner)
	return w, s.refuse(a, err)
}

func (a *actor) awake(ctx context.Context, owner string) (*Awake, error) {
	h := &hold{owner: owner, client: true, reply: make(chan answer, 1)}
	l, err := a.obtain(ctx, Acquire, h)
	if err != nil {
		return nil, err
	}
	return &Awake{live: l, give: sync.OnceFunc(func() { a.release(h) })}, nil
}

// Dial connects to a port of the guest. The connection may outlive the Awake.
func (w *Awake) Dial(ctx context.Context, port uint16) (GuestConn, error) {
	c, err := w.live.dialPort(ctx, port)
	if err != nil {
		return nil, w.explain(err)
	}
	return c, nil
}

// Release lets the instance sleep. It may be called again.
func (w *Awake) Release() { w.give() }

func (w *Awake) explain(err error) error {
	if w.live.isGone() || errors.Is(err, vmm.ErrEnded) && w.live.endedBy(err) {
		return w.live.cause()
	}
	return err
}

// connect is the Connect of a port: the instance is held awake until the connection
// is closed.
func (a *actor) connect(ctx context.Context, port uint16) (GuestConn, error) {
	w, err := a.awake(ctx, fmt.Sprintf("connection to port %d", port))
	if err != nil {
		return nil, err
	}
	c, err := w.live.dialPort(ctx, port)
	if err != nil {
		w.Release()
		return nil, w.explain(err)
	}
	c.free = w.Release
	return c, nil
}
