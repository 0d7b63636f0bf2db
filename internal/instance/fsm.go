package instance

import "errors"

// State is where an instance is. In a settled state (Stopped, Running, Paused,
// Deleted) nothing is being done to its machine; in every other state exactly one
// operation is in flight.
type State uint8

// The states.
const (
	Stopped   State = iota // no machine
	Booting                // a machine is being started, up to its program running
	Running                // the program runs
	Pausing                // the vCPUs are being stopped
	Paused                 // the vCPUs are stopped, memory is resident
	Resuming               // the vCPUs are being let go
	Saving                 // memory is being written to disk, the vCPUs are stopped
	Capturing              // what there is is being taken for a fork or snapshot; then it is again as before
	Stopping               // the machine is being ended
	Erasing                // the instance's files are being removed
	Deleted                // nothing is left; the last state
)

var stateNames = [...]string{"stopped", "booting", "running", "pausing", "paused", "resuming", "saving", "capturing", "stopping", "erasing", "deleted"}

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
	ToReverted // running, from a snapshot of its past
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
	Captures   int   // requests to capture it that wait for their turn
	Back       State // of Capturing: the settled state that it was in
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
	Revert                      // explicit
	Delete                      // explicit
	Idle                        // nothing held the instance awake for the time that its state allows
	Done                        // the operation in flight has ended, with Event.Err
	Exited                      // the program has ended by itself
	Crashed                     // the program has ended too often: like Exited, and bars
	Died                        // the machine has ended by itself
	TakeState                   // somebody wants it captured
	eventKinds                  // their number
)

var eventNames = [...]string{
	"acquire", "abandon", "release", "start", "pause", "hibernate", "stop", "disable", "restart", "revert", "delete",
	"idle", "done", "exited", "crashed", "died", "capture",
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
	DoCapture // for the one who has waited longest
	DoStop
	DoErase
	DoRevert       // like DoBoot, from the snapshot
	Cancel         // end the operation in flight early; its Done still comes
	ArmIdle        // Idle after the time that the state allows
	DisarmIdle     // no Idle
	AnswerHolds    // tell all who wait to be awake: Effect.Err, or nil and they hold
	AnswerGoal     // tell those who asked for the goal: Effect.Err, or nil
	Overrule       // tell all of them but the newest: Effect.Err
	Refuse         // tell only the newest of them: Effect.Err
	RefuseCaptures // tell all who wait to have it captured: Effect.Err
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
