package instance

import (
	"context"
	"maps"
	"net"
	"slices"
	"sync"
	"time"
)

// GuestConn is a connection into a guest. Its methods may be called together.
type GuestConn interface {
	net.Conn

	// CloseWrite ends this direction; reading goes on.
	CloseWrite() error

	// Abort is a Close after which the program in the guest sees that the connection
	// broke, and does not take what it has read for all that there was.
	Abort()

	// Gone returns a context that ends when the guest takes no more, at the latest with
	// Close.
	Gone() context.Context
}

// wires are the connections of clients into one machine, and what is known of its
// ports. They end together when the user stops or pauses it.
type wires struct {
	mu    sync.Mutex
	conns map[*wire]bool
	open  context.Context //nolint:containedctx // of connections and attempts; hangUp ends and replaces it
	cut   context.CancelCauseFunc
	heard map[uint16]bool // ports that have answered since the program's start
	hope  time.Time       // until then the others may still be about to listen
}

func newWires() *wires {
	w := &wires{conns: map[*wire]bool{}, heard: map[uint16]bool{}}
	w.open, w.cut = context.WithCancelCause(context.Background())
	return w
}

// wire is one connection into a guest. It implements GuestConn.
type wire struct {
	halfConn

	of    *wires
	once  sync.Once
	free  func()          // gives back what was held for it; nil is nothing
	gone  context.Context //nolint:containedctx // of the connection
	leave func()          // ends gone
}

// halfConn is a connection whose directions end one by one.
type halfConn interface {
	net.Conn
	CloseWrite() error
}

// Close ends the connection. Calling it again does nothing.
func (w *wire) Close() error {
	err := net.ErrClosed
	w.end(func() { err = w.halfConn.Close() })
	return err
}

// Gone implements GuestConn.
func (w *wire) Gone() context.Context { return w.gone }

// Abort implements GuestConn.
func (w *wire) Abort() { w.end(w.breakOff) }

func (w *wire) end(how func()) {
	w.once.Do(func() {
		w.of.mu.Lock()
		delete(w.of.conns, w)
		w.of.mu.Unlock()
		how()
		w.leave()
		if w.free != nil {
			w.free()
		}
	})
}

func (w *wire) breakOff() {
	if c, ok := w.halfConn.(interface{ Abort() }); ok {
		c.Abort()
		return
	}
	_ = w.halfConn.Close() // whoever breaks off does not mind how
}

// hangUp ends all connections, and attempts to make some, which fail with why.
func (w *wires) hangUp(why error) {
	w.mu.Lock()
	w.cut(why)
	w.open, w.cut = context.WithCancelCause(context.Background())
	conns := slices.Collect(maps.Keys(w.conns))
	w.mu.Unlock()
	for _, c := range conns {
		c.breakOff() // whoever relays it sees the end, and closes the wire
	}
}

// attempt returns a context that ends when all are hung up.
func (w *wires) attempt() context.Context {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.open
}

// add takes in a connection that an attempt has made.
func (w *wires) add(attempt context.Context, c halfConn, port uint16) (*wire, error) {
	out := &wire{halfConn: c, of: w}
	inner := context.Background()
	if c, ok := c.(interface{ Gone() context.Context }); ok {
		inner = c.Gone()
	}
	out.gone, out.leave = joined(attempt, inner)
	w.mu.Lock()
	defer w.mu.Unlock()
	if attempt.Err() != nil {
		_ = c.Close() // nobody has it
		return nil, context.Cause(attempt)
	}
	w.heard[port] = true
	w.conns[out] = true
	return out, nil
}

// expect says until when a program that has just been started may take to listen.
func (w *wires) expect(until time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hope = until
}

// left returns how much longer a program that stands still since then may take to listen.
func (w *wires) left(slept time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return max(0, w.hope.Sub(slept))
}

// awoke gives the program back the time in which it stood still.
func (w *wires) awoke(slept time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hope.After(slept) {
		w.hope = w.hope.Add(time.Since(slept))
	}
}

// hopeless reports whether a port that refuses now will go on to: it has answered
// before, or has had its time.
func (w *wires) hopeless(port uint16) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.heard[port] || !time.Now().Before(w.hope)
}
