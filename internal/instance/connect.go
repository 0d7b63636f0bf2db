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
	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// The pauses between attempts to reach a program that has just been started and does
// not listen yet.
const (
	minRedial = 5 * time.Millisecond
	maxRedial = 50 * time.Millisecond
)

// dialPort connects to a port of the guest. A program that has just been started is
// given time to listen: see Limits.Listen.
func (l *live) dialPort(ctx context.Context, port uint16) (*wire, error) {
	attempt := l.wires.attempt()
	ctx, done := joined(ctx, attempt)
	defer done()
	for wait := minRedial; ; wait = min(2*wait, maxRedial) {
		// Before the attempt: while it is being refused another may be the first that is not.
		last := l.wires.hopeless(port)
		c, err := l.dialOnce(ctx, port)
		if err == nil {
			return l.wires.add(attempt, c, port) //nolint:contextcheck // not the caller's: the connection outlives the call
		}
		if !errors.Is(err, syscall.ECONNREFUSED) || last {
			return nil, err
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			if cause := context.Cause(ctx); fault.KindOf(cause) != fault.Timeout {
				return nil, cause
			}
			return nil, fault.Wrap(fault.Timeout, err, "the program was not ready in time").By(fault.Program)
		}
	}
}

// joined returns a copy of ctx that ends also when other does, with the same cause.
func joined(ctx, other context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(other, func() { cancel(context.Cause(other)) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// dialOnce tries the guest's network, and behind that its loopback, where programs
// listen that were not written to be reached. The Guest API is not one of them: whoever
// got there would be taken for a program in the guest.
func (l *live) dialOnce(ctx context.Context, port uint16) (halfConn, error) {
	n, err := l.network()
	if err != nil {
		return nil, err
	}
	c, err := n.Dial(ctx, port)
	if errors.Is(err, syscall.ECONNREFUSED) && port != guestproto.APIPort {
		var inner error
		c, inner = l.guest.Dial(ctx, net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
		if fault.KindOf(inner) != fault.Unavailable { // nothing listens there either
			err = inner
		}
	}
	switch {
	case err == nil:
		return c.(halfConn), nil //nolint:forcetypeassert // both kinds have CloseWrite, by contract
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil, fault.Wrap(fault.Unavailable, err, "nothing listens on port %d in the VM", port).By(fault.Program)
	}
	return nil, fmt.Errorf("dial port %d in the VM: %w", port, err)
}

// Awake keeps an instance awake for as long as somebody talks to it.
type Awake struct {
	actor    *actor
	live     *live
	released context.Context //nolint:containedctx // ends with Release
	release  context.CancelCauseFunc
	give     func()
}

// Awake wakes an instance and holds it awake until Release. owner says for what, to
// people.
func (s *Set) Awake(ctx context.Context, ref, owner string) (*Awake, error) {
	a, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	return a.awake(ctx, owner, true)
}

// awake is Awake; client says that it is for a client of a port.
func (a *actor) awake(ctx context.Context, owner string, client bool) (*Awake, error) {
	h := &hold{owner: owner, client: client, reply: make(chan answer, 1)}
	l, err := a.obtain(ctx, Acquire, h)
	if err != nil {
		return nil, a.set.refuse(a, err)
	}
	w := &Awake{actor: a, live: l, give: sync.OnceFunc(func() { a.release(h) })}
	w.released, w.release = context.WithCancelCause(context.Background())
	return w, nil
}

var errReleased = errors.New("nobody waits for the connection any more")

// Dial connects to a port of the guest. The connection may outlive the Awake; the Dial
// does not.
func (w *Awake) Dial(ctx context.Context, port uint16) (GuestConn, error) {
	c, err := w.dial(ctx, port)
	if err != nil {
		return nil, err // not a nil *wire in an interface
	}
	return c, nil
}

func (w *Awake) dial(ctx context.Context, port uint16) (*wire, error) {
	ctx, done := joined(ctx, w.released)
	defer done()
	c, err := w.live.dialPort(ctx, port)
	if err != nil && w.live.endedBy(err) {
		err = w.live.cause()
	}
	return c, w.actor.set.refuse(w.actor, err)
}

// Release lets the instance sleep. It may be called again.
func (w *Awake) Release() {
	w.release(errReleased)
	w.give()
}

// connect is the Connect of a port: the instance is held awake until the connection
// is closed.
func (a *actor) connect(ctx context.Context, port uint16) (GuestConn, error) {
	w, err := a.awake(ctx, fmt.Sprintf("connection to port %d", port), true)
	if err != nil {
		return nil, err
	}
	c, err := w.dial(ctx, port)
	if err != nil {
		w.Release()
		return nil, err
	}
	c.free = w.Release
	return c, nil
}
