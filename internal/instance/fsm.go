package instance

import "errors"

// State is where an instance is. In a settled state (Stopped, Running, Paused,
// Deleted) nothing is being done to its machine; in every other state exactly one
// operation is in flight.
type State uint8

// The states.
const (
	Stopped  State = iota // no machine
	Booting               // a machine is being started, up to its program running
	Running               // the program runs
	Pausing               // the vCPUs are being stopped
	Paused                // the vCPUs are stopped, memory is resident
	Resuming              // the vCPUs are being let go
	Saving                // memory is being written to disk, the vCPUs are stopped
	Stopping              // the machine is being ended
	Erasing               // the instance's files are being removed
	Deleted               // nothing is left; the last state
)

var stateNames = [...]string{"stopped", "booting", "running", "pausing", "paused", "resuming", "saving", "stopping", "erasing", "deleted"}

// String returns the state's own name, for logs and diagrams.
func (s State) String() string { return stateNames[s] }

// Settled reports whether no operation is in flight in s.
func (s State) Settled() bool {
	return s == Stopped || s == Running || s == Paused || s == Deleted
}

// Goal is an explicit request that has not come true yet. It overrides holds and
// the idle policy; a newer goal overrides an older one, and nothing overrides
// ToDeleted.
type Goal uint8

// The goals.
const (
	Free      Goal = iota // none: holds and the idle policy decide
	ToRunning             // what is left of ToRestarted once the old machine is gone
	ToPaused
	ToHibernated
	ToStopped
	ToDisabled
	ToRestarted
	ToDeleted
)

// Snap is the whole decidable state of an instance.
type Snap struct {
	State   State
	Goal    Goal
	Enabled bool // triggers may wake it
	Barred  bool // it crashed too often: only an explicit start wakes it
	Holds   int  // reasons to be awake that were granted and not given back
	Waiting int  // reasons to be awake that wait for the machine
	Over    bool // the program has ended, the machine is to follow
	Lost    bool // the machine ended while an operation was in flight
	// Hibernated says that there is no machine, but its memory is saved: the next start
	// goes on where it was.
	Hibernated bool
}

// EventKind says what happened.
type EventKind uint8

// The events.
const (
	Acquire    EventKind = iota // somebody wants the instance awake
	Abandon                     // somebody who waits gave up
	Release                     // a granted hold is given back
	Start                       // an explicit start or resume: an Acquire that also enables
	Pause                       // explicit
	Hibernate                   // explicit
	Stop                        // explicit
	Disable                     // explicit
	Restart                     // explicit
	Delete                      // explicit
	Idle                        // nothing held the instance awake for the time that its state allows
	Done                        // the operation in flight has ended, with Event.Err
	Exited                      // the program has ended by itself
	Crashed                     // the program has ended too often: like Exited, and bars
	Died                        // the machine has ended by itself
	eventKinds                  // their number
)

var eventNames = [...]string{
	"acquire", "abandon", "release", "start", "pause", "hibernate", "stop", "disable", "restart", "delete",
	"idle", "done", "exited", "crashed", "died",
}

// String returns the event's name, for logs and diagrams.
func (k EventKind) String() string { return eventNames[k] }

// Event is one thing that happened to an instance.
type Event struct {
	Kind   EventKind
	Err    error // Done only
	Paused bool  // Done of Booting only: the machine was found paused
	Spent  bool  // Done of Booting only: memory that was saved is not any more
}

// EffectKind is what the actor does for the transition function.
type EffectKind uint8

// The effects. Boot to Erase start the operation in flight, which ends in Done.
const (
	DoBoot EffectKind = iota
	DoPause
	DoResume
	DoSave
	DoStop
	DoErase
	Cancel      // end the operation in flight early; its Done still comes
	ArmIdle     // Idle after the time that the state allows
	DisarmIdle  // no Idle
	AnswerHolds // tell all who wait to be awake: Effect.Err, or nil and they hold
	AnswerGoal  // tell those who asked for the goal: Effect.Err, or nil
	Overrule    // tell all of them but the newest: Effect.Err
	Refuse      // tell only the newest of them: Effect.Err
)

// Effect is one thing to do, in order.
type Effect struct {
	Do  EffectKind
	Err error // of the answers
}

// Reasons why a request was not granted.
var (
	ErrDisabled   = errors.New("the instance is disabled")
	ErrBarred     = errors.New("its program crashed again and again")
	ErrDeleted    = errors.New("the instance is deleted")
	ErrSuperseded = errors.New("another request came in between")
	ErrNotRunning = errors.New("the instance is not running")
	ErrEnded      = errors.New("the machine ended")
)

// next is the core: pure, without clock, I/O or locks. Every event is allowed in
// every state.
func next(s Snap, ev Event) (Snap, []Effect) {
	t := transition{Snap: s}
	if s.State == Deleted {
		t.afterEnd(ev)
	} else {
		t.apply(ev)
	}
	return t.Snap, t.effects
}

// transition is one call of next: a state being changed and what is to be done.
type transition struct {
	Snap
	effects []Effect
}

func (t *transition) do(k EffectKind) { t.effects = append(t.effects, Effect{Do: k}) }

func (t *transition) begin(s State, k EffectKind) {
	t.State = s
	t.do(k)
}

func (t *transition) answerHolds(err error) {
	if t.Waiting == 0 {
		return
	}
	if err == nil {
		t.Holds += t.Waiting
	}
	t.Waiting = 0
	t.effects = append(t.effects, Effect{AnswerHolds, err})
}

func (t *transition) answerGoal(err error) {
	t.Goal = Free
	t.effects = append(t.effects, Effect{AnswerGoal, err})
}

// afterEnd answers what reaches an instance that is no more.
func (t *transition) afterEnd(ev Event) {
	switch ev.Kind {
	case Acquire, Start:
		t.Waiting++
		t.answerHolds(ErrDeleted)
	case Pause, Hibernate, Stop, Disable, Restart:
		t.answerGoal(ErrDeleted)
	case Delete:
		t.answerGoal(nil)
	case Release:
		t.Holds = max(0, t.Holds-1)
	case Abandon, Idle, Done, Exited, Crashed, Died, eventKinds:
	}
}

func (t *transition) apply(ev Event) {
	switch ev.Kind {
	case Acquire:
		t.Waiting++
		if t.Goal == ToDeleted {
			t.answerHolds(ErrDeleted)
			return
		}
		t.wanted()
	case Start:
		t.start()
		t.wanted()
	case Abandon:
		t.Waiting = max(0, t.Waiting-1)
		return
	case Release:
		t.Holds = max(0, t.Holds-1)
	case Pause, Hibernate, Stop, Disable, Restart, Delete:
		t.aim(goalOf(ev.Kind))
	case Idle:
		t.idle()
		return
	case Done:
		t.done(ev)
	case Exited, Crashed:
		t.exited(ev.Kind == Crashed)
	case Died:
		t.died()
	case eventKinds:
	}
	t.settle()
}

func goalOf(k EventKind) Goal {
	switch k { //nolint:exhaustive // only explicit requests have a goal
	case Pause:
		return ToPaused
	case Hibernate:
		return ToHibernated
	case Stop:
		return ToStopped
	case Disable:
		return ToDisabled
	case Restart:
		return ToRestarted
	default:
		return ToDeleted
	}
}

// idle puts the instance a step further to sleep.
func (t *transition) idle() {
	if t.Holds > 0 || t.Goal != Free || t.Over {
		return
	}
	switch t.State { //nolint:exhaustive // sleep deepens in two states only
	case Running:
		t.begin(Pausing, DoPause)
	case Paused:
		t.begin(Saving, DoSave)
	}
}

// wanted ends a save that nobody asked for: what is still in memory wakes faster.
func (t *transition) wanted() {
	if t.State == Saving && t.Goal == Free {
		t.do(Cancel)
	}
}

// start enables the instance and waits for it like an Acquire. It revokes what
// would disable or pause it; a stop under way comes first and is followed by a
// start.
func (t *transition) start() {
	t.Waiting++
	switch t.Goal {
	case ToDeleted:
		t.answerHolds(ErrDeleted)
		return
	case ToDisabled:
		t.answerGoal(ErrSuperseded)
		if !t.State.Settled() {
			t.Goal = ToStopped
		}
	case ToPaused:
		t.answerGoal(ErrSuperseded)
	case Free, ToRunning, ToHibernated, ToStopped, ToRestarted:
	}
	t.Enabled, t.Barred = true, false
}

// aim sets a new goal. A machine that is being booted towards something else is
// not waited for.
func (t *transition) aim(g Goal) {
	if t.Goal == ToDeleted && g != ToDeleted {
		t.effects = append(t.effects, Effect{Refuse, ErrDeleted})
		return
	}
	if t.Goal != Free && t.Goal != g {
		t.effects = append(t.effects, Effect{Overrule, ErrSuperseded})
	}
	if g == ToRestarted {
		t.Enabled, t.Barred = true, false
	}
	if g == ToHibernated || g == ToStopped || g == ToDisabled || g == ToDeleted {
		t.answerHolds(ErrSuperseded) // or they would start it again behind the stop
	}
	t.Goal = g
	switch {
	case t.State == Booting && g != ToPaused && (g != ToHibernated || !t.Hibernated), t.State == Saving && g != ToHibernated:
		t.do(Cancel)
	}
}

func (t *transition) exited(crashed bool) {
	t.Barred = t.Barred || crashed
	if t.State != Stopped && t.State != Erasing {
		t.Over = true
	}
}

// died handles a machine that ended by itself. With an operation in flight, that
// operation fails soon and done takes care.
func (t *transition) died() {
	switch t.State {
	case Running, Paused:
		t.State = Stopped
		t.reset()
	case Booting, Pausing, Resuming, Saving, Stopping:
		t.Lost = true
	case Stopped, Erasing, Deleted:
	}
}

// reset forgets what was true of a machine that is gone.
func (t *transition) reset() {
	t.Over, t.Lost = false, false
	t.do(DisarmIdle)
}

// done ends the operation in flight. Each has one outcome for success and one for
// failure; a lost machine makes any of them Stopped.
func (t *transition) done(ev Event) {
	was, err := t.State, ev.Err
	if was.Settled() {
		return
	}
	switch was {
	case Booting:
		t.State = pick(err, Running, Stopped)
		if err == nil && ev.Paused {
			t.State = Paused
		}
		t.Hibernated = t.Hibernated && err != nil && !ev.Spent
	case Pausing:
		t.State = pick(err, Paused, Running)
	case Resuming:
		t.State = pick(err, Running, Paused)
	case Saving:
		t.State = pick(err, Stopped, Paused)
		t.Hibernated = err == nil
	case Stopping:
		if t.Hibernated { // there was no machine, only its memory
			t.State, t.Hibernated = Stopped, err != nil
			break
		}
		t.State = pick(err, Stopped, Running)
	case Erasing:
		t.State = pick(err, Deleted, Stopped)
	case Stopped, Running, Paused, Deleted:
	}
	if t.Lost && t.State != Stopped {
		t.State = Stopped
		if err == nil {
			err = ErrEnded
		}
	}
	if t.State == Stopped {
		t.reset()
	}
	switch {
	case err != nil:
		t.failed(was, err)
	case was == Booting && t.State == Running && (t.Goal == Free || t.Goal == ToRunning || t.Goal == ToPaused):
		// Even if the program has ended by now or is to be paused: those who waited
		// had their start. Left waiting they would start it again for ever.
		t.answerHolds(nil)
	}
}

func pick(err error, ok, failed State) State {
	if err != nil {
		return failed
	}
	return ok
}

// failed tells those whom the failure of an operation concerns.
func (t *transition) failed(was State, err error) {
	switch was {
	case Booting, Resuming:
		if t.Goal == Free || t.Goal == ToRunning {
			t.answerHolds(err)
		}
		if t.Goal == ToRunning {
			t.answerGoal(err)
		}
	case Pausing:
		if t.Goal == ToPaused || t.Goal == ToHibernated {
			t.answerGoal(err)
		}
	case Saving:
		if t.Goal == ToHibernated {
			t.answerGoal(err)
		}
	case Stopping, Erasing:
		if t.State != Stopped || was == Erasing || t.Hibernated {
			t.Over = false
			if t.Goal != Free {
				t.answerGoal(err)
			}
		}
	case Stopped, Running, Paused, Deleted:
	}
}

// settle decides what a settled state leads to. It is the only place where
// operations begin (idle pauses aside), so none can begin while one is in flight.
func (t *transition) settle() {
	switch t.State {
	case Running:
		t.settleRunning()
	case Paused:
		t.settlePaused()
	case Stopped:
		t.settleStopped()
	case Deleted:
		t.answerHolds(ErrDeleted)
		t.answerGoal(nil)
	case Booting, Pausing, Resuming, Saving, Stopping, Erasing:
	}
}

func (t *transition) settleRunning() {
	if t.Goal == ToRunning {
		t.answerGoal(nil)
	}
	switch {
	case t.Goal == ToStopped, t.Goal == ToDisabled, t.Goal == ToRestarted, t.Goal == ToDeleted, t.Over:
		t.begin(Stopping, DoStop)
		return
	case t.Goal == ToPaused, t.Goal == ToHibernated:
		t.begin(Pausing, DoPause)
		return
	}
	t.answerHolds(nil)
	t.armIdle()
}

func (t *transition) armIdle() {
	if t.Holds > 0 {
		t.do(DisarmIdle)
	} else {
		t.do(ArmIdle)
	}
}

func (t *transition) settlePaused() {
	if t.Goal == ToPaused {
		t.answerGoal(nil)
	}
	switch {
	case t.Goal == ToHibernated && !t.Over:
		t.begin(Saving, DoSave)
	case t.Goal != Free, t.Over:
		t.begin(Stopping, DoStop)
	case t.Waiting > 0:
		t.begin(Resuming, DoResume)
	default:
		t.armIdle()
	}
}

func (t *transition) settleStopped() {
	switch t.Goal {
	case ToDeleted:
		t.answerHolds(ErrDeleted)
		t.begin(Erasing, DoErase)
		return
	case ToDisabled:
		t.Enabled = false
		t.answerGoal(nil)
	case ToHibernated:
		if t.Hibernated {
			t.answerGoal(nil)
		} else {
			t.answerGoal(ErrNotRunning)
		}
	case ToStopped:
		if t.Hibernated {
			t.begin(Stopping, DoStop)
			return
		}
		t.answerGoal(nil)
	case ToPaused:
		t.answerGoal(ErrNotRunning)
	case ToRestarted, ToRunning:
		if t.Hibernated && t.Goal == ToRestarted {
			t.begin(Stopping, DoStop)
			return
		}
		t.Goal = ToRunning
		t.begin(Booting, DoBoot)
		return
	case Free:
	}
	switch {
	case t.Waiting == 0:
	case !t.Enabled:
		t.answerHolds(ErrDisabled)
	case t.Barred:
		t.answerHolds(ErrBarred)
	default:
		t.begin(Booting, DoBoot)
	}
}
