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
}

// wakes reports whether r can start a machine that is not being started yet.
func (r request) wakes() bool {
	return r.ev.Kind == Start || r.ev.Kind == Restart || r.ev.Kind == Acquire && r.hold != nil
}

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
	crashes crashes
	doors   doors
	timer   *time.Timer
}

// result is how an operation ended.
type result struct {
	err    error
	live   *live // of a machine that was started or found
	paused bool  // it was found paused
	spent  bool  // memory that was saved is not any more
}

func newActor(r Record, s *Set) *actor {
	t := time.NewTimer(time.Hour)
	t.Stop()
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
		timer:   t,
		doors:   doors{},
	}
	// Ports change while the instance lives: they are the record's, which is the actor's
	// alone.
	a.record.Spec.Expose = slices.Clone(r.Spec.Expose)
	a.spec.Expose = nil
	a.refresh()
	return a
}

// bornIn makes the actor begin its life with an operation in flight. It is called
// before run.
func (a *actor) bornIn(state State, op func(context.Context) result) {
	a.snap.State, a.first = state, op
	a.refresh()
}

// run is the actor's life: it ends when the instance is deleted, or let go by a
// daemon that leaves, and all it started has ended.
func (a *actor) run() {
	defer close(a.ended)
	defer a.ops.Wait()
	defer close(a.deaf) // or those that are waited for could wait to be heard
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
		case <-a.timer.C:
			a.step(Event{Kind: Idle})
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
		a.refresh()
	}
}

// letGo leaves the machine, if there is one, to the next daemon.
func (a *actor) letGo() {
	a.closeDoors()
	for !a.snap.State.Settled() {
		a.finish(<-a.done)
	}
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
	case r.ev.Kind == Start || r.ev.Kind == Restart:
		// They enable the instance: its ports are open, or it does not start.
		if err := a.openDoors(); err != nil {
			a.decline(r, err)
			return
		}
	}
	switch {
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

// finish ends the operation in flight.
func (a *actor) finish(r result) {
	a.cancel(nil)
	switch state := a.snap.State; {
	case r.live != nil:
		a.live, a.asleep = r.live, nil
	case r.spent, state == Stopping && a.live == nil && r.err == nil:
		a.asleep = nil
	case state == Saving && r.err == nil:
		a.live, a.asleep = nil, a.live
	case state == Saving && !errors.Is(r.err, ErrSuperseded):
		a.remark("%v", r.err)
	}
	if a.live != nil && a.live.isGone() {
		// The operation may have succeeded just before, or failed because of it.
		if r.err == nil && a.snap.State != Stopping {
			r.err = a.live.cause()
		}
		a.lost()
		a.step(Event{Kind: Died})
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
		a.changed(before.State, ev)
	}
	if before.State != a.snap.State && a.snap.State == Stopped || before.Enabled != a.snap.Enabled {
		a.remember()
	}
	if a.snap.State == Erasing || before.Enabled && !a.snap.Enabled {
		a.closeDoors()
	}
	a.refresh() // who is answered sees what has become of it
	for _, e := range effects {
		a.perform(e)
	}
}

// changed tells of a change of state.
func (a *actor) changed(from State, ev Event) {
	now := time.Now()
	attrs := []slog.Attr{
		logattr.From(from.String()), logattr.To(a.snap.State.String()),
		logattr.Why(ev.Kind.String()), logattr.Took(now.Sub(a.since)),
	}
	if ev.Err != nil {
		attrs = append(attrs, logattr.Err(ev.Err))
	}
	a.log.LogAttrs(context.Background(), slog.LevelInfo, "state", attrs...)
	a.since, a.record.Updated = now, now
	switch a.snap.State {
	case Stopped:
		a.record.Stopped = now
		if from == Booting && ev.Err != nil {
			a.note(ev.Err)
		}
	case Booting:
		a.record.Stopped, a.record.Why = time.Time{}, ""
	case Running, Pausing, Paused, Resuming, Saving, Stopping, Erasing, Deleted:
	}
	a.set.publish(Change{Time: now, ID: a.id, Handle: a.spec.Handle, From: from, To: a.snap.State, Why: ev.Kind.String()})
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
	case DoStop:
		a.begin(func(ctx context.Context) result { return result{err: a.stop(ctx, l, asleep)} })
	case DoErase:
		a.begin(func(ctx context.Context) result { return result{err: a.erase(ctx, asleep)} })
	case Cancel:
		a.cancel(ErrSuperseded)
	case ArmIdle:
		a.armIdle()
	case DisarmIdle:
		a.timer.Stop()
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
	}
}

// armIdle starts the time after which the instance falls deeper asleep, if there is
// one for its state.
func (a *actor) armIdle() {
	after := a.spec.PauseAfter
	if a.snap.State == Paused {
		after = a.spec.StopAfter
		if !a.world.Driver.Info().Abilities.Save {
			after = 0 // only a save keeps what is in memory
		}
	}
	if after > 0 {
		a.timer.Reset(after)
	} else {
		a.timer.Stop()
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
