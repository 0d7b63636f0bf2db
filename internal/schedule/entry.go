package schedule

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
)

// ID names a schedule for ever. IDs sort by their time of creation.
type ID string

// NewID returns "sched-", the milliseconds since 1970 in hex, and 24 random bits.
func NewID() ID {
	var r [3]byte
	_, _ = rand.Read(r[:]) // never fails, see crypto/rand
	return ID(fmt.Sprintf("sched-%011x%s", time.Now().UnixMilli(), hex.EncodeToString(r[:])))
}

// Entry is a command that a user wants to be run in an instance at times.
type Entry struct {
	ID       ID
	Instance instance.ID
	When     When
	Command  []string
	Created  time.Time
	// Last is the time up to which the schedule has been dealt with: that of its last run,
	// of one that was left out, or of its creation.
	Last   time.Time
	Ran    time.Time // when it ran last; zero is never
	Exec   string    // the id of that run, "" if it did not begin
	Result string    // how it ended, for people; "" while it runs
}

// MaxPerInstance is how many schedules an instance may have.
const MaxPerInstance = 64

// Store remembers Entries, and Marks of agents' entries. Package store implements it. What
// it has answered survives a crash of the host; all of an instance's goes with the
// instance.
type Store interface {
	// LoadSchedules returns what can be read, next to an error for the rest.
	LoadSchedules(ctx context.Context) ([]Entry, error)

	// AddSchedule fails with fault.NotFound if there is no such instance.
	AddSchedule(ctx context.Context, e Entry) error

	// UpdateSchedule stores Last, Ran, Exec and Result. An entry that is gone stays so.
	UpdateSchedule(ctx context.Context, e Entry) error

	// DeleteSchedule is idempotent.
	DeleteSchedule(ctx context.Context, id ID) error

	// LoadMarks returns how far an instance's agent's entries have been dealt with, by
	// their ids; SaveMarks replaces it. An instance that is gone has none.
	LoadMarks(ctx context.Context, id instance.ID) (map[string]time.Time, error)
	SaveMarks(ctx context.Context, id instance.ID, marks map[string]time.Time) error
}

// Instances is what a Runner needs of the core. Its methods may be called together.
type Instances interface {
	// Start wakes an instance and starts a command in it, whose output goes into the
	// instance's log. One that must not be woken is a fault.Conflict, one that is gone
	// fault.NotFound. The command ends with ctx.
	Start(ctx context.Context, id instance.ID, command []string) (Running, error)

	// Note writes a line of AegisVM's own into the instance's log.
	Note(id instance.ID, line string)
}

// Running is a command that was started.
type Running interface {
	ID() string

	// Wait returns its exit status. It is called once, and frees what the command holds.
	Wait() (status int, err error)
}

// check says what is wrong with a new entry.
func (e *Entry) check(now time.Time) error {
	switch {
	case len(e.Command) == 0 || e.Command[0] == "":
		return fault.New(fault.Invalid, "no command to run").WithHint("put it behind --, as in: aegis instance schedule X '*/5 * * * *' -- date")
	case e.When.cron == nil && !e.When.at.After(now):
		return fault.New(fault.Invalid, "%s is in the past", e.When)
	}
	return nil
}

// next returns the next time of the entry.
func (e *Entry) next(now time.Time) time.Time {
	_, _, next := e.When.look(e.Last, now)
	return next
}
