package instance

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/logattr"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// actor owns one instance. Only its run goroutine touches the fields below ops.
type actor struct {
	id      ID
	spec    Spec
	magic   guestproto.Magic // opens the link to its machine; the record's
	set     *Set             // the others
	world   *World
	log     *slog.Logger
	output  Log // what its processes write; nil if ephemeral
	mailbox chan request
	born    chan struct{} // closed when the first operation has ended
	left    chan struct{} // closed when the machine is let go
	deaf    chan struct{} // closed when nobody reads the mailbox any more
	ended   chan struct{} // closed when run has returned
	view    atomic.Pointer[View]

	ops     sync.WaitGroup // the operation in flight, and what watches the machine
	done    chan result    // of operations; at most one is in flight
	shared  *share         // what served the folders last; operations' own
	first   func(context.Context) result
	snap    Snap
	record  Record
	given   []string                // names of the secrets that the program was started with
	since   time.Time               // of the state
	live    *live                   // the run, while it has a machine
	asleep  *live                   // the run, while only its memory is there, on disk
	cancel  context.CancelCauseFunc // ends the operation in flight
	waiting []*hold
	granted []*hold
	askers  []chan error // wait for the goal
	takings []*taking    // wait for their captures
	taking  *taking      // has the one in flight
	revert  *captured    // what ToReverted leads to
	told    Attendance   // what was said of its sidecars last
	pending bool         // it is not remembered yet, see Set.Fork
	crashes crashes
	doors   doors
	idle    *idle
	lease   leasing
	ledger  ledger
	busy    atomic.Pointer[string] // what the guest does by itself; nil is nothing
}

// result is how an operation ended.
type result struct {
	err    error
	live   *live // of a machine that was started or found
	paused bool  // it was found paused
	spent  bool  // memory that was saved is not any more
	taken  *captured
}

func newActor(r Record, s *Set) *actor {
	a := &actor{
		id: r.ID, spec: r.Spec, magic: r.Magic, set: s, world: &s.world,
		log:     s.world.Log.With(logattr.Instance(r.ID), logattr.Handle(r.Spec.Handle)),
		mailbox: make(chan request),
		born:    make(chan struct{}),
		left:    make(chan struct{}),
		deaf:    make(chan struct{}),
		ended:   make(chan struct{}),
		done:    make(chan result, 1),
		snap:    Snap{Enabled: r.Enabled},
		record:  r,
		given:   r.Spec.Secrets,
		since:   time.Now(),
		idle:    newIdle(),
		lease:   newLeasing(),
		doors:   doors{},
	}
	// Ports change while the instance lives: they are the record's, which is the actor's
	// alone.
	a.record.Spec.Expose = slices.Clone(r.Spec.Expose)
	a.spec.Expose = nil
	a.refresh()
	return a
}

// bornBooting makes the actor begin its life with an operation in flight. It is called
// before run.
func (a *actor) bornBooting(op func(context.Context) result) {
	a.snap.State, a.first = Booting, op
	a.refresh()
}

// run is the actor's life: it ends when the instance is deleted, or let go by a
// daemon that leaves, and all it started has ended.
func (a *actor) run() {
	defer close(a.ended)
	defer a.ops.Wait()
	defer a.idle.disarm()
	defer a.lease.timer.Stop()
	defer close(a.deaf) // or those that are waited for could wait to be heard
	a.attend()
	if a.first != nil {
		a.begin(a.first)
	} else {
		close(a.born)
	}
	for a.snap.State != Deleted {
		select {
		case r := <-a.mailbox:
			if r.letGo {
				a.letGo()
				return
			}
			a.take(r)
		case <-a.idle.timer.C:
			a.step(Event{Kind: Idle})
		case <-a.idle.quiet:
			a.idle.quiet = nil
			a.step(Event{Kind: Idle})
		case <-a.lease.timer.C:
			a.endLease()
			a.remember()
		case r := <-a.done:
			a.finish(r)
			if a.first != nil {
				a.first = nil
				a.refresh()
				close(a.born)
			}
		case <-a.gone():
			a.lost()
			a.step(Event{Kind: Died})
		}
		a.settleLease()
		a.refresh()
	}
}

// letGo leaves the machine, if there is one, to the next daemon.
func (a *actor) letGo() {
	a.closeDoors()
	for !a.snap.State.Settled() {
		a.finish(<-a.done)
	}
	a.refuseTakings(errClosing)
	close(a.left)
	if a.asleep != nil {
		a.asleep.end(errClosing)
	}
	if a.output != nil {
		if err := a.output.Close(); err != nil {
			a.log.Error("close log", logattr.Err(err))
		}
	}
}

// gone is closed when the machine has ended. It is nil while an operation is in
// flight: its result comes first.
func (a *actor) gone() <-chan struct{} {
	if a.live == nil || !a.snap.State.Settled() {
		return nil
	}
	return a.live.gone
}

// finish ends the operation in flight.
func (a *actor) finish(r result) {
	a.cancel(nil)
	switch state := a.snap.State; {
	case r.live != nil:
		a.live, a.asleep = r.live, nil
	case r.spent, state == Stopping && a.live == nil && r.err == nil:
		a.asleep = nil
	case state == Saving && r.err == nil:
		a.live, a.asleep = nil, a.live.sleeps()
	case state == Saving && !errors.Is(r.err, ErrSuperseded):
		a.remark("%v", r.err)
	}
	if a.live != nil && a.live.endedBy(r.err) {
		// The operation may have succeeded just before, or failed because of it.
		if (r.err == nil || errors.Is(r.err, vmm.ErrEnded)) && a.snap.State != Stopping {
			r.err = a.live.cause()
		}
		a.lost()
		a.step(Event{Kind: Died})
	}
	if a.snap.State == Capturing {
		a.taking.give(r)
		a.taking = nil
	}
	a.step(Event{Kind: Done, Err: r.err, Paused: r.paused, Spent: r.spent})
}

// lost lets go of a machine that has ended.
func (a *actor) lost() {
	l := a.live
	a.live = nil
	l.pumps.Wait() // what it wrote comes before what is said of its end
	if a.snap.State != Stopping {
		a.note(l.cause())
	} else if !l.over.Load() {
		a.conclude("the VM was stopped")
	}
}

func (a *actor) step(ev Event) {
	before := a.snap
	var effects []Effect
	a.snap, effects = next(a.snap, ev)
	if before.State != a.snap.State {
		a.changed(before, ev)
	}
	if before.outward() != a.snap.outward() && a.snap.State == Stopped || before.Enabled != a.snap.Enabled {
		a.remember()
	}
	if a.snap.State == Erasing || before.Enabled && !a.snap.Enabled {
		a.closeDoors()
	}
	a.attend()
	a.refresh() // who is answered sees what was done
	for _, e := range effects {
		a.perform(e)
	}
}

// changed tells of a change of state.
func (a *actor) changed(before Snap, ev Event) {
	now, from := time.Now(), before.State
	attrs := []slog.Attr{
		logattr.From(from.String()), logattr.To(a.snap.State.String()),
		logattr.Why(ev.Kind.String()), logattr.Took(now.Sub(a.since)),
	}
	if ev.Err != nil {
		attrs = append(attrs, logattr.Err(ev.Err))
	}
	a.log.LogAttrs(context.Background(), slog.LevelInfo, "state", attrs...)
	a.since = now
	if before.outward() == a.snap.outward() {
		return
	}
	a.record.Updated = now
	switch a.snap.State {
	case Stopped:
		a.record.Stopped = now
		if !a.snap.Hibernated {
			a.record.Lease = Lease{} // who took it has ended; see settleLease
		}
		if from == Booting && ev.Err != nil {
			a.note(ev.Err)
		}
	case Booting:
		a.record.Stopped, a.record.Why = time.Time{}, ""
	case Running, Pausing, Paused, Resuming, Saving, Capturing, Stopping, Erasing, Deleted:
	}
	a.set.publish(Change{Time: now, ID: a.id, Handle: a.spec.Handle, From: before.outward(), To: a.snap.State, Why: ev.Kind.String()})
}

func (a *actor) perform(e Effect) {
	l, asleep := a.live, a.asleep
	switch e.Do {
	case DoBoot:
		if !a.snap.Hibernated { // a program that goes on has what it has
			a.given = a.record.Spec.Secrets
		}
		a.begin(func(ctx context.Context) result { return a.boot(ctx, asleep) })
	case DoPause:
		if a.snap.Goal == ToPaused || a.snap.Goal == ToHibernated {
			l.wires.hangUp(ErrSuperseded) // nobody is cut off by the idle policy: connections hold
		}
		a.begin(func(ctx context.Context) result { return result{err: a.pause(ctx, l)} })
	case DoResume:
		a.begin(func(ctx context.Context) result { return result{err: a.resume(ctx, l)} })
	case DoSave:
		a.begin(func(ctx context.Context) result { return result{err: a.hibernate(ctx, l)} })
	case DoCapture:
		back := a.snap.Back
		a.taking, a.takings = a.takings[0], a.takings[1:]
		origin, workspaceOf := a.origin(), a.taking.workspaceOf
		a.begin(func(ctx context.Context) result { return a.capture(ctx, l, back, origin, workspaceOf) })
	case DoRevert:
		from := a.revert
		a.revert, a.given = nil, from.origin.Given
		a.begin(func(ctx context.Context) result { return a.goBack(ctx, asleep, from) })
	case DoStop:
		goal := a.snap.Goal
		a.begin(func(ctx context.Context) result { return result{err: a.stop(ctx, l, asleep, goal)} })
	case DoErase:
		a.begin(func(ctx context.Context) result { return result{err: a.erase(ctx, asleep)} })
	case Cancel:
		a.cancel(ErrSuperseded)
	case ArmIdle:
		a.armIdle()
	case DisarmIdle:
		a.idle.disarm()
	case AnswerHolds:
		a.answerHolds(e.Err)
	case AnswerGoal:
		tell(a.askers, e.Err)
		a.askers = nil
	case Overrule:
		last := len(a.askers) - 1
		tell(a.askers[:last], e.Err)
		a.askers = slices.Clone(a.askers[last:])
	case Refuse:
		last := len(a.askers) - 1
		tell(a.askers[last:], e.Err)
		a.askers = a.askers[:last]
	case RefuseCaptures:
		a.refuseTakings(e.Err)
	}
}

func (a *actor) answerHolds(err error) {
	for _, h := range a.waiting {
		h.since = time.Now()
		h.reply <- answer{err, a.live}
	}
	if err == nil {
		a.granted = append(a.granted, a.waiting...)
		a.record.Active = time.Now()
	}
	a.waiting = nil
}

func tell(askers []chan error, err error) {
	for _, ask := range askers {
		ask <- err
	}
}

// begin runs an operation on the machine; its result comes back over a.done.
func (a *actor) begin(op func(context.Context) result) {
	// Operations belong to the instance, not to the call that caused them.
	ctx, cancel := context.WithCancelCause(context.Background())
	a.cancel = cancel
	a.ops.Go(func() { a.done <- op(ctx) })
}
