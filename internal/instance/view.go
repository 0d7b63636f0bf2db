package instance

import (
	"context"
	"slices"
	"time"

	"github.com/xfeldman/aegisvm/internal/size"
)

// View is what an instance looks like at one moment. It is a copy: it does not
// change.
type View struct {
	Record
	State State
	// Hibernated says that the memory of a stopped instance is saved: it wakes where it
	// was.
	Hibernated bool
	Goal       Goal
	Barred     bool // its program crashed too often: only an explicit start wakes it
	// Workspace is where on the host its workspace is; "" without any.
	Workspace string
	Holds     []HoldView // what keeps it awake, oldest first
	// Clients is how many connections to its ports hold it awake.
	Clients int
	// Memory and DiskUse measure what the instance takes of the host now.
	Memory  func() (size.Bytes, error)
	DiskUse func() (size.Bytes, error)
	// Harness is the build version of the machine's PID 1; "" without a machine.
	Harness string
	// thaw sets the clock of a guest that runs; nil in other states.
	thaw func(context.Context) error
	// Busy says what the guest does that keeps it awake without a hold, or is "".
	Busy func() string
	// Traffic counts what has crossed its network since the daemon began, and Denials are the
	// last attempts that were refused, oldest first.
	Traffic func() Traffic
	Denials func() []Denial
	// Trouble tells what its machine has suffered from the host, or nil.
	Trouble func() error
}

// HoldView is one reason to be awake.
type HoldView struct {
	Owner string
	Since time.Time
}

// Change is one change of state.
type Change struct {
	Time     time.Time
	ID       ID
	Handle   string
	From, To State
	Why      string
}

// Wire returns the state's name on the wire: the few that clients know.
func (s State) Wire() string {
	switch s {
	case Booting:
		return "starting"
	case Running, Pausing, Resuming, Capturing, Stopping:
		return "running"
	case Paused, Saving:
		return "paused"
	case Stopped, Erasing, Deleted:
	}
	return "stopped"
}

// outward is the state that others see: to be captured changes none.
func (s Snap) outward() State {
	if s.State == Capturing {
		return s.Back
	}
	return s.State
}

// refresh publishes the actor's state to readers.
func (a *actor) refresh() {
	a.record.Enabled = a.snap.Enabled
	a.set.families.note(a.spec.Parent, a.id, a.snap.State != Stopped && a.snap.State != Deleted || a.snap.Hibernated)
	v := &View{
		Record: a.record, State: a.snap.outward(), Hibernated: a.snap.Hibernated, Goal: a.snap.Goal, Barred: a.snap.Barred,
		Memory: noMemory, Trouble: noTrouble, Busy: a.busyWith,
		Traffic: a.ledger.traffic, Denials: a.ledger.denials,
	}
	if a.world.Workspaces != nil {
		v.Workspace = a.world.Workspaces.Dir(a.id, a.spec.Folders)
	}
	v.DiskUse = func() (size.Bytes, error) { return a.world.Ground.DiskUse(a.id) }
	v.Spec.Command = slices.Clone(a.spec.Command)
	v.Spec.Expose = slices.Clone(a.record.Spec.Expose)
	for _, h := range a.granted {
		v.Holds = append(v.Holds, HoldView{h.owner, h.since})
		if h.client {
			v.Clients++
		}
	}
	if l := a.live; l != nil {
		if a.snap.State == Running { // then the link is there, and no operation makes another
			v.thaw = l.guest.Thaw
		}
		v.Harness, _ = l.harness.Load().(string) // none was asked of one that was found paused
		v.Trouble = func() error { return a.trouble(l) }
		if b := l.current(); b != nil {
			v.Memory = func() (size.Bytes, error) {
				u, err := b.machine.Usage()
				return u.Memory, err
			}
		}
	}
	a.view.Store(v)
}

func noMemory() (size.Bytes, error) { return 0, nil }

func noTrouble() error { return nil }
