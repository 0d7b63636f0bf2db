package instance

import (
	"context"
	"time"
)

// hold is one reason to be awake. It belongs to the actor from the Acquire on; its
// owner keeps it only to give it back.
type hold struct {
	owner string // for people: "run", "exec exec-...", "connection to port 80"
	// client says that a client talks to the guest itself: it is counted as one.
	client bool
	since  time.Time
	reply  chan answer // buffered: the actor never waits for an owner
}

// answer tells a waiter how it went, and gives it the machine it now holds.
type answer struct {
	err  error
	live *live
}

// hold waits until the instance is awake. The caller gives the hold back with
// release, once. After an error there is nothing to give back.
func (a *actor) hold(ctx context.Context, kind EventKind, owner string) (*hold, *live, error) {
	h := &hold{owner: owner, reply: make(chan answer, 1)}
	l, err := a.obtain(ctx, kind, h)
	if err != nil {
		return nil, nil, err
	}
	return h, l, nil
}

func (a *actor) obtain(ctx context.Context, kind EventKind, h *hold) (*live, error) {
	if err := a.send(ctx, request{ev: Event{Kind: kind}, hold: h}); err != nil {
		return nil, err
	}
	return a.granting(ctx, h)
}

// firstHold makes somebody wait for the operation that the actor is born in. It is
// called before run.
func (a *actor) firstHold(owner string) *hold {
	h := &hold{owner: owner, reply: make(chan answer, 1)}
	a.waiting = append(a.waiting, h)
	a.snap.Waiting++
	return h
}

// granting waits until a hold is granted or refused.
func (a *actor) granting(ctx context.Context, h *hold) (*live, error) {
	select {
	case got := <-h.reply:
		return got.live, got.err
	case <-ctx.Done():
	}
	// The answer may be under way: what counts is what the actor believes.
	a.tell(request{hold: h, gaveUp: true})
	return nil, context.Cause(ctx)
}

func (a *actor) release(h *hold) { a.tell(request{ev: Event{Kind: Release}, hold: h}) }
