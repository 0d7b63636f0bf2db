package instance

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/xfeldman/aegisvm/internal/logattr"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// World is what instances stand on and are made with.
type World struct {
	Driver vmm.Driver
	Ground Ground
	Linker Linker
	Log    *slog.Logger
	Limits Limits
}

// Limits bounds how long things may take.
type Limits struct {
	// Boot protects clients from a guest that never comes up: from the VMM's start
	// to the program's start. Emulated machines on a busy host are slow.
	Boot time.Duration
	// Grace is what a program gets between SIGTERM and SIGKILL.
	Grace time.Duration
	// PowerOff protects a stop from a guest that does not end: counted from the end
	// of Grace.
	PowerOff time.Duration
	// Kill protects the daemon from a VMM that cannot even be killed.
	Kill time.Duration
}

// DefaultLimits are the limits of a daemon.
func DefaultLimits() Limits {
	return Limits{Boot: 90 * time.Second, Grace: 10 * time.Second, PowerOff: 5 * time.Second, Kill: 20 * time.Second}
}

// request is an Event on its way to the actor. answer is buffered; it is nil for
// events that are only told.
type request struct {
	ev     Event
	answer chan answer
	gaveUp bool // answer's owner no longer listens: abandon, or release what it got
}

// answer tells a waiter how it went, and gives it the machine it now holds.
type answer struct {
	err  error
	live *live
}

// actor owns one instance. Only its run goroutine touches the fields below ops.
type actor struct {
	id    ID
	spec  Spec
	world *World
	log   *slog.Logger
	idle  time.Duration // 0 is never

	unlist  func() // gives the handle back
	mailbox chan request
	ended   chan struct{} // closed when run has returned

	ops     sync.WaitGroup // the operation in flight, and the watcher of the machine
	done    chan error     // results of operations; at most one is in flight
	snap    Snap
	since   time.Time // of the state
	live    *live     // the machine, while there is one
	booted  chan *live
	cancel  context.CancelCauseFunc // ends the operation in flight
	holders []chan answer           // wait to be awake
	askers  []chan answer           // wait for the goal
	timer   *time.Timer
}

func newActor(id ID, spec Spec, w *World) *actor {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return &actor{
		id: id, spec: spec, world: w,
		log:     w.Log.With(logattr.Instance(id), logattr.Handle(spec.Handle)),
		mailbox: make(chan request),
		ended:   make(chan struct{}),
		done:    make(chan error, 1),
		booted:  make(chan *live, 1),
		snap:    Snap{Enabled: true},
		since:   time.Now(),
		timer:   t,
	}
}

// run is the actor's life: it ends when the instance is deleted and all it
// started has ended.
func (a *actor) run() {
	defer close(a.ended)
	defer a.ops.Wait()
	for a.snap.State != Deleted {
		select {
		case r := <-a.mailbox:
			a.take(r)
		case <-a.timer.C:
			a.step(Event{Kind: Idle})
		case err := <-a.done:
			a.finish(err)
		case <-a.gone():
			a.live = nil
			a.step(Event{Kind: Died})
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
	if r.gaveUp {
		a.forget(r.answer)
		return
	}
	if r.answer != nil {
		switch r.ev.Kind { //nolint:exhaustive // the other kinds carry no answer
		case Acquire, Start:
			a.holders = append(a.holders, r.answer)
		default:
			a.askers = append(a.askers, r.answer)
		}
	}
	a.step(r.ev)
}

// forget takes back what a caller that went away asked for.
func (a *actor) forget(reply chan answer) {
	if i := slices.Index(a.holders, reply); i >= 0 {
		a.holders = slices.Delete(a.holders, i, i+1)
		a.step(Event{Kind: Abandon})
		return
	}
	if got := <-reply; got.err == nil {
		a.step(Event{Kind: Release})
	}
}

// finish ends the operation in flight.
func (a *actor) finish(err error) {
	a.cancel(nil)
	select {
	case a.live = <-a.booted:
	default:
	}
	if a.live != nil && a.live.isGone() {
		// The operation may have succeeded just before, or failed because of it.
		if err == nil && a.snap.State != Stopping {
			err = a.live.cause()
		}
		a.live = nil
		a.step(Event{Kind: Died})
	}
	a.step(Event{Kind: Done, Err: err})
}

func (a *actor) step(ev Event) {
	before := a.snap
	var effects []Effect
	a.snap, effects = next(a.snap, ev)
	if before.State != a.snap.State {
		a.logChange(before.State, ev)
	}
	for _, e := range effects {
		a.perform(e)
	}
}

func (a *actor) logChange(from State, ev Event) {
	now := time.Now()
	attrs := []slog.Attr{
		logattr.From(from.String()), logattr.To(a.snap.State.String()),
		logattr.Why(ev.Kind.String()), logattr.Took(now.Sub(a.since)),
	}
	if ev.Err != nil {
		attrs = append(attrs, logattr.Err(ev.Err))
	}
	a.log.LogAttrs(context.Background(), slog.LevelInfo, "state", attrs...)
	a.since = now
}

func (a *actor) perform(e Effect) {
	switch e.Do {
	case DoBoot:
		a.begin(a.boot)
	case DoPause:
		a.begin(a.live.machine.Pause)
	case DoResume:
		a.begin(a.live.machine.Resume)
	case DoStop:
		l := a.live
		a.begin(func(ctx context.Context) error { return a.stop(ctx, l) })
	case DoErase:
		a.begin(a.erase)
	case Cancel:
		a.cancel(ErrSuperseded)
	case ArmIdle:
		if a.idle > 0 {
			a.timer.Reset(a.idle)
		}
	case DisarmIdle:
		a.timer.Stop()
	case AnswerHolds:
		tell(a.holders, answer{e.Err, a.live})
		a.holders = nil
	case AnswerGoal:
		tell(a.askers, answer{err: e.Err})
		a.askers = nil
	case Overrule:
		last := len(a.askers) - 1
		tell(a.askers[:last], answer{err: e.Err})
		a.askers = slices.Clone(a.askers[last:])
	case Refuse:
		last := len(a.askers) - 1
		tell(a.askers[last:], answer{err: e.Err})
		a.askers = a.askers[:last]
	}
}

func tell(waiters []chan answer, what answer) {
	for _, w := range waiters {
		w <- what
	}
}

// begin runs an operation on the machine; its result comes back over a.done.
func (a *actor) begin(op func(context.Context) error) {
	// Operations belong to the instance, not to the call that caused them.
	ctx, cancel := context.WithCancelCause(context.Background())
	a.cancel = cancel
	a.ops.Go(func() { a.done <- op(ctx) })
}

// hold waits until the instance is awake. The caller gives the hold back with
// release, once. After an error there is nothing to give back.
func (a *actor) hold(ctx context.Context, kind EventKind) (*live, error) {
	reply := make(chan answer, 1) // buffered: the actor never waits for a caller
	if err := a.send(ctx, request{ev: Event{Kind: kind}, answer: reply}); err != nil {
		return nil, err
	}
	select {
	case got := <-reply:
		return got.live, got.err
	case <-ctx.Done():
	}
	// The answer may be under way: what counts is what the actor believes.
	a.tell(request{answer: reply, gaveUp: true})
	return nil, context.Cause(ctx)
}

func (a *actor) release() { a.tell(request{ev: Event{Kind: Release}}) }

// ask makes an explicit request and waits until it has come true.
func (a *actor) ask(ctx context.Context, kind EventKind) error {
	reply := make(chan answer, 1)
	if err := a.send(ctx, request{ev: Event{Kind: kind}, answer: reply}); err != nil {
		return err
	}
	select {
	case got := <-reply:
		return got.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (a *actor) send(ctx context.Context, r request) error {
	select {
	case a.mailbox <- r:
		return nil
	case <-a.ended:
		return ErrDeleted
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// tell sends an event that nobody waits for.
func (a *actor) tell(r request) {
	select {
	case a.mailbox <- r:
	case <-a.ended:
	}
}
