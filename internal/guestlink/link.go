package guestlink

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"math/big"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/logattr"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// Dialer is the part of vmm.Machine that a Link needs.
type Dialer interface {
	DialGuest(ctx context.Context) (net.Conn, error)
}

// The first and the longest pause between attempts to connect.
const (
	minPause = 10 * time.Millisecond
	maxPause = time.Second
)

var errClosed = fault.New(fault.Conflict, "the link to the VM was closed")

// Link is the connection to one guest, over all its sessions. Its methods may be
// called together.
type Link struct {
	log    *slog.Logger
	ctx    context.Context //nolint:containedctx // the life of the link; Close ends it
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
	ids    atomic.Uint64 // of requests
	limit  time.Duration // of the next attempt to open a session; only run touches it

	mu       sync.Mutex
	machine  Dialer // nil while the guest has none
	moves    int    // how often that has changed
	magic    guestproto.Magic
	base     guestproto.Hello  // what every Hello says
	first    *guestproto.Hello // what only the next one says: rekey and identity
	owned    map[guestproto.ExecID]uint64
	attached map[guestproto.ExecID]*attachment
	welcome  guestproto.Welcome
	sess     *session      // nil while there is none
	err      error         // why there will be none any more
	changed  chan struct{} // closed and replaced when sess, err or first changes
}

// Open makes the first handshake with the guest of m. It returns when the guest is
// ready for work. The processes that hello owns stay owned until they are detached
// from with all of their output acknowledged.
func Open(ctx context.Context, log *slog.Logger, m Dialer, magic guestproto.Magic, hello guestproto.Hello) (*Link, error) {
	l := &Link{
		log: log, machine: m, magic: magic, limit: minOpen,
		owned:    map[guestproto.ExecID]uint64{},
		attached: map[guestproto.ExecID]*attachment{},
		changed:  make(chan struct{}),
	}
	l.ctx, l.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	l.ids.Store(randomID())
	for _, o := range hello.Owned {
		l.owned[o.Exec] = o.Offset
	}
	l.adopt(hello)
	l.wg.Go(l.run)
	if _, err := l.live(ctx); err != nil {
		_ = l.Close() // never fails
		return nil, err
	}
	return l, nil
}

// randomID returns where this link's request IDs begin: a guest remembers the
// answers to those of daemons before.
func randomID() uint64 {
	n, err := rand.Int(rand.Reader, big.NewInt(math.MaxInt64))
	if err != nil {
		return uint64(time.Now().UnixNano())
	}
	return n.Uint64()
}

// adopt takes over what later handshakes say. The caller holds mu, or is alone.
func (l *Link) adopt(hello guestproto.Hello) {
	l.base = guestproto.Hello{MinVersion: hello.MinVersion, Version: hello.Version, LonelyOffMS: hello.LonelyOffMS, Prepare: hello.Prepare}
	l.first = &hello
}

// Suspend implements instance.Guest: there is no session until Reopen.
func (l *Link) Suspend() {
	l.mu.Lock()
	l.machine = nil
	l.moves++
	sess := l.sess
	l.sess = nil
	l.wake()
	l.mu.Unlock()
	if sess != nil {
		sess.end(errSessionEnded)
	}
}

// Reopen implements instance.Guest.
func (l *Link) Reopen(ctx context.Context, m vmm.Machine, hello guestproto.Hello) error {
	return l.reopen(ctx, m, hello)
}

// reopen ends the session, if there is one, and makes another, to machine m, which
// may be a different one: a wake or a fork of what the guest was. What hello owns
// is added to what the link owns. It returns when the guest is ready for work.
func (l *Link) reopen(ctx context.Context, m Dialer, hello guestproto.Hello) error {
	l.mu.Lock()
	l.machine = m
	l.moves++
	for _, o := range hello.Owned {
		if _, known := l.owned[o.Exec]; !known {
			l.owned[o.Exec] = o.Offset
		}
	}
	l.adopt(hello)
	sess := l.sess
	l.sess = nil
	l.wake()
	l.mu.Unlock()
	if sess != nil {
		sess.end(errSessionEnded)
	}
	_, err := l.live(ctx)
	return err
}

// Magic returns the magic of the next opening, to be kept for whoever makes a Link
// to this guest after this one.
func (l *Link) Magic() guestproto.Magic {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.magic
}

// Harness implements instance.Guest.
func (l *Link) Harness() string { return l.Welcome().Harness }

// Welcome returns what the guest said in the last handshake.
func (l *Link) Welcome() guestproto.Welcome {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.welcome
}

// Close ends the link and waits for all it started. The guest is not told.
func (l *Link) Close() error {
	l.cancel(errClosed)
	l.wg.Wait()
	return nil
}

// run keeps a session up until the link is closed or can never have one again.
func (l *Link) run() {
	pause := minPause
	for {
		machine, moves := l.target()
		lived, err := l.session(machine)
		switch {
		case lived > maxPause:
			pause = 0
		case lived > 0: // a guest that ends session after session costs the host little
			pause = minPause
		case errors.Is(err, errNoEcho): // it has been waited for already
			pause = minPause
		default:
			pause = max(minPause, min(2*pause, maxPause))
		}
		if cause := context.Cause(l.ctx); cause != nil {
			err = cause
		} else if l.hasMoved(moves) {
			pause = minPause
			continue
		} else if !final(err) {
			l.log.DebugContext(l.ctx, "guest link down", logattr.Err(err))
			timer := time.NewTimer(pause)
			select {
			case <-timer.C:
				continue
			case <-l.ctx.Done():
				timer.Stop()
			}
			err = context.Cause(l.ctx)
		}
		l.fail(err)
		return
	}
}

// target waits until the guest has a machine, and returns it; nil if the link is
// closed before.
func (l *Link) target() (machine Dialer, moves int) {
	for {
		l.mu.Lock()
		machine, moves, changed := l.machine, l.moves, l.changed
		l.mu.Unlock()
		if machine != nil {
			return machine, moves
		}
		select {
		case <-changed:
		case <-l.ctx.Done():
			return nil, moves
		}
	}
}

// hasMoved reports whether the guest has left the machine that it had after so many
// moves: what happened there does not matter.
func (l *Link) hasMoved(moves int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.moves != moves
}

// session makes one session and returns how long it lived and why it ended; it
// never lived if it could not be made.
func (l *Link) session(machine Dialer) (time.Duration, error) {
	if machine == nil {
		return 0, context.Cause(l.ctx)
	}
	sess, err := l.connect(l.ctx, machine)
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	l.publish(sess)
	<-sess.done
	l.withdraw(sess)
	sess.wait()
	return max(1, time.Since(begun)), sess.fault(nil)
}

// final reports whether no later attempt can succeed.
func final(err error) bool {
	_, said := errors.AsType[*guestproto.Error](err)
	return said || errors.Is(err, vmm.ErrEnded) || errors.Is(err, errProtocol)
}

// connect makes one session.
func (l *Link) connect(ctx context.Context, machine Dialer) (*session, error) {
	l.mu.Lock()
	magic := l.magic
	l.mu.Unlock()
	conn, err := machine.DialGuest(ctx)
	if err != nil {
		return nil, fmt.Errorf("dial the guest: %w", err)
	}
	rest, err := open(ctx, conn, magic, l.limit)
	if err != nil {
		_ = conn.Close() // it is of no use
		l.limit = min(2*l.limit, maxOpen)
		return nil, err
	}
	l.limit = minOpen
	sess := newSession(ctx, l.log, &guard{Conn: conn, rest: rest})
	if err := l.greet(sess); err != nil {
		sess.end(err)
		sess.wait()
		return nil, err
	}
	return sess, nil
}

// greet says Hello and takes the guest's Welcome.
func (l *Link) greet(sess *session) error {
	hello, first := l.hello()
	welcome, took, err := sess.greet(l.ids.Add(1), hello)
	if err != nil {
		return err
	}
	if took > prompt && !hello.Prepare { // a template has no clock of its own to keep
		if err := l.setClock(sess); err != nil {
			return err
		}
	}
	if welcome.Version < guestproto.MinVersion || welcome.Version > guestproto.Version {
		return broken("it speaks version %d", welcome.Version)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.welcome = welcome
	if first != nil && first.Rekey != nil {
		l.magic = *first.Rekey
	}
	if l.first == first {
		l.first = nil
	}
	return nil
}

// hello returns what to say now, and the part of it that is not to be said again
// once the guest has answered.
func (l *Link) hello() (h guestproto.Hello, first *guestproto.Hello) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h = l.base
	if l.first != nil {
		h.Rekey, h.Identity, h.DiskBytes = l.first.Rekey, l.first.Identity, l.first.DiskBytes
	}
	h.Owned = []guestproto.Owned{}
	for _, id := range slices.Sorted(maps.Keys(l.owned)) {
		off := l.owned[id]
		if a := l.attached[id]; a != nil {
			off = a.kept()
		}
		h.Owned = append(h.Owned, guestproto.Owned{Exec: id, Offset: off})
	}
	return h, l.first
}

func (l *Link) publish(sess *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first != nil || l.machine == nil { // Reopen or Suspend came meanwhile: this is not the session they want
		sess.end(errSessionEnded)
		return
	}
	l.sess = sess
	l.wake()
}

func (l *Link) withdraw(sess *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sess == sess {
		l.sess = nil
	}
}

func (l *Link) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
	l.wake()
	l.cancel(err) // attachments end too
}

// wake tells all who wait in live. The caller holds mu.
func (l *Link) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// live waits for a session.
func (l *Link) live(ctx context.Context) (*session, error) {
	for {
		l.mu.Lock()
		sess, err, changed := l.sess, l.err, l.changed
		l.mu.Unlock()
		switch {
		case err != nil:
			return nil, asFault(err)
		case sess != nil && !sess.ended():
			return sess, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func asFault(err error) error {
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	if said, ok := errors.AsType[*guestproto.Error](err); ok {
		return guestFault("", said)
	}
	return fault.Wrap(fault.Unavailable, err, "link to the VM")
}
