package instance

import (
	"context"
	"slices"
	"time"
)

// request is something on its way to the actor: an event, and who waits for it.
type request struct {
	ev   Event
	hold *hold      // of Acquire, Start and Release
	ask  chan error // of explicit requests; buffered
	// gaveUp says that hold's owner no longer waits: abandon it, or release it.
	gaveUp bool
	exit   *programExit // of Exited
	do     func() error // of instructions, which are no events; answered over ask
	letGo  bool         // the daemon leaves; machine and files stay as they are
	grant  *grant       // of other secrets
	take   *taking      // of TakeState
	revert *captured    // of Revert: what it goes back to
}

// wakes reports whether r can start a machine that is not being started yet.
func (r request) wakes() bool {
	return r.ev.Kind == Start || r.ev.Kind == Restart || r.ev.Kind == Revert || r.ev.Kind == Acquire && r.hold != nil
}

func (a *actor) take(r request) {
	switch {
	case r.gaveUp:
		a.forget(r.hold)
		return
	case r.grant != nil:
		r.grant.take(a)
		return
	case r.do != nil:
		err := r.do()
		a.refresh() // who is answered sees what was done
		r.ask <- err
		return
	case r.wakes() && a.set.isClosing():
		a.decline(r, errClosing) // or it would run on behind a stop of all
		return
	case r.wakes() && a.refuseChild(r):
		return
	case r.ev.Kind == Start || r.ev.Kind == Restart || r.ev.Kind == Revert:
		// They enable the instance: its ports are open, or it does not start.
		if err := a.openDoors(); err != nil {
			a.decline(r, err)
			return
		}
		a.set.families.open(a.id)
	}
	switch {
	case r.take != nil:
		a.takings = append(a.takings, r.take)
	case r.exit != nil:
		r.ev.Kind = a.programEnded(*r.exit)
	case r.ev.Kind == Release:
		i := slices.Index(a.granted, r.hold)
		if i < 0 {
			return
		}
		a.granted = slices.Delete(a.granted, i, i+1)
		a.record.Active = time.Now()
	case r.hold != nil:
		a.waiting = append(a.waiting, r.hold)
	case r.ask != nil:
		a.askers = append(a.askers, r.ask)
		if r.revert != nil {
			a.revert = r.revert
		}
	}
	a.step(r.ev)
}

// decline answers a request that does not reach the core.
func (a *actor) decline(r request, err error) {
	if r.hold != nil {
		r.hold.reply <- answer{err: err}
	} else {
		r.ask <- err
	}
}

// forget takes back what a caller that went away asked for.
func (a *actor) forget(h *hold) {
	if i := slices.Index(a.waiting, h); i >= 0 {
		a.waiting = slices.Delete(a.waiting, i, i+1)
		a.step(Event{Kind: Abandon})
		return
	}
	if i := slices.Index(a.granted, h); i >= 0 {
		a.granted = slices.Delete(a.granted, i, i+1)
		a.step(Event{Kind: Release})
	}
}

// ask makes an explicit request and waits until it has come true.
func (a *actor) ask(ctx context.Context, kind EventKind) error {
	return a.demand(ctx, request{ev: Event{Kind: kind}})
}

// instruct has the actor do something that changes no state. do must not take long.
func (a *actor) instruct(ctx context.Context, do func() error) error {
	return a.demand(ctx, request{do: do})
}

// demand sends a request and waits for its answer.
func (a *actor) demand(ctx context.Context, r request) error {
	r.ask = make(chan error, 1)
	if err := a.send(ctx, r); err != nil {
		return err
	}
	select {
	case err := <-r.ask:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (a *actor) send(ctx context.Context, r request) error {
	select {
	case a.mailbox <- r:
		return nil
	case <-a.deaf:
		return ErrDeleted
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// tell sends something that nobody waits for.
func (a *actor) tell(r request) {
	select {
	case a.mailbox <- r:
	case <-a.deaf:
	}
}
