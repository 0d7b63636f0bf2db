package schedule

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/cron"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/logattr"
)

// Agents is what a Runner needs of instances that have an agent. Its methods may be called
// together.
type Agents interface {
	// List returns them.
	List() []instance.ID

	// CronFile returns what the instance's cron.File has, or nil if there is none. It
	// follows no link, and wakes nobody.
	CronFile(id instance.ID) ([]byte, error)

	// Send stores a frame for the agent and wakes its instance. It does not wait for the
	// agent. One with the MsgID of a frame that is stored already is dropped. An instance
	// that must not be woken is a fault.Conflict.
	Send(ctx context.Context, id instance.ID, f api.Frame) error
}

// slowly is how often agents' files are read beside: they change while their instance is
// awake, or by the hand of its user.
const slowly = time.Minute

// cronChannel is the tether's channel of frames that nobody has typed.
const cronChannel = "cron"

// agent is what a Runner knows of an instance's agent's entries. What is under way belongs
// to its goroutine; the Runner's mu protects the rest.
type agent struct {
	read      time.Time // when the file was read last
	sum       [sha256.Size]byte
	reminders []Reminder
	marks     map[string]time.Time // by a reminder's id: up to when it has been dealt with
	busy      bool                 // its file is read, or frames are sent
}

// readAgents begins to read files that may have changed.
func (r *Runner) readAgents(ctx context.Context) {
	if r.conf.Agents == nil {
		return
	}
	ids := r.conf.Agents.List()
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.agents, func(id instance.ID, _ *agent) bool { return !slices.Contains(ids, id) })
	for _, id := range ids {
		a := r.agents[id]
		if a == nil {
			a = &agent{}
			r.agents[id] = a
		}
		if since := now.Sub(a.read); a.busy || !r.stale[id] && since >= 0 && since < slowly {
			continue
		}
		a.busy, a.read = true, now
		delete(r.stale, id)
		r.wg.Go(func() {
			defer r.idle(a)
			r.readAgent(ctx, id, a)
		})
	}
}

// idle ends what was under way of an agent.
func (r *Runner) idle(a *agent) {
	r.mu.Lock()
	a.busy = false
	r.mu.Unlock()
	r.Poke()
}

// readAgent reads one file. What cannot be read, or is half written, leaves the entries as
// they were.
func (r *Runner) readAgent(ctx context.Context, id instance.ID, a *agent) {
	if a.marks == nil {
		marks, err := r.conf.Store.LoadMarks(ctx, id)
		if err != nil {
			r.log.ErrorContext(ctx, "load an agent's schedules", logattr.Instance(id), logattr.Err(err))
			return
		}
		r.mu.Lock()
		a.marks = maps.Clone(marks)
		if a.marks == nil {
			a.marks = map[string]time.Time{}
		}
		r.mu.Unlock()
	}
	b, err := r.conf.Agents.CronFile(id)
	sum := sha256.Sum256(append([]byte(fault.KindOf(err)), b...))
	if sum == a.sum {
		return
	}
	a.sum = sum
	if err != nil {
		r.complain(ctx, id, err)
		return
	}
	var good []Reminder
	if len(bytes.TrimSpace(b)) > 0 {
		var bad []error
		if good, bad, err = parseCronFile(b); err != nil {
			r.complain(ctx, id, err)
			return
		}
		if len(bad) > 0 {
			r.complain(ctx, id, fmt.Errorf("%d entries cannot be used; the first: %w", len(bad), bad[0]))
		}
	}
	if r.adopt(a, good) {
		r.saveMarks(ctx, id, a)
	}
}

// complain tells once what is wrong with a file: it is read again when it has changed.
func (r *Runner) complain(ctx context.Context, id instance.ID, err error) {
	r.log.WarnContext(ctx, "an agent's schedules", logattr.Instance(id), logattr.Err(err))
	r.conf.Instances.Note(id, fmt.Sprintf("%s: %v", cron.File, err))
}

// adopt replaces an agent's entries, and reports whether its marks have changed. What is
// new begins now.
func (r *Runner) adopt(a *agent, good []Reminder) (changed bool) {
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	before := map[string]string{}
	for _, old := range a.reminders {
		before[old.ID] = old.When.String()
	}
	marks := map[string]time.Time{}
	for _, n := range good {
		when, known := before[n.ID]
		mark, marked := a.marks[n.ID]
		if !marked || known && when != n.When.String() {
			mark, changed = now, true
		}
		marks[n.ID] = mark
	}
	changed = changed || len(marks) != len(a.marks)
	a.reminders, a.marks = good, marks
	return changed
}

func (r *Runner) saveMarks(ctx context.Context, id instance.ID, a *agent) {
	r.mu.Lock()
	marks := maps.Clone(a.marks)
	r.mu.Unlock()
	if err := r.conf.Store.SaveMarks(ctx, id, marks); err != nil {
		r.log.ErrorContext(ctx, "remember an agent's schedules", logattr.Instance(id), logattr.Err(err))
	}
}

// fireAgents begins what is due at now, and returns when something is next.
func (r *Runner) fireAgents(ctx context.Context, now time.Time) (next time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, a := range r.agents {
		if a.busy {
			continue // it pokes
		}
		due := map[string]time.Time{}
		for _, n := range a.reminders {
			a.marks[n.ID] = sane(a.marks[n.ID], now)
			at, missed, then := n.When.look(a.marks[n.ID], now)
			next = earliest(next, then)
			switch {
			case !n.Enabled:
				a.marks[n.ID] = now
			case !at.IsZero():
				due[n.ID] = at
			case !missed.IsZero():
				a.marks[n.ID] = now
			}
		}
		if len(due) > 0 {
			a.busy = true
			reminders := a.reminders
			r.wg.Go(func() {
				defer r.idle(a)
				r.remind(ctx, id, a, reminders, due)
			})
		}
	}
	return next
}

// remind sends what is due, in the order of the file. That of a daemon which dies before the
// mark is stored is sent again, under the same id.
func (r *Runner) remind(ctx context.Context, id instance.ID, a *agent, reminders []Reminder, due map[string]time.Time) {
	for _, n := range reminders {
		at, ok := due[n.ID]
		if !ok {
			continue
		}
		err := r.conf.Agents.Send(ctx, id, n.frame(at, r.now()))
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			r.log.WarnContext(ctx, "an agent was not reminded", logattr.Instance(id), logattr.Schedule(n.ID), logattr.Err(err))
			r.tell(id, ID(n.ID), "not sent: %v", err)
		}
		r.mu.Lock()
		a.marks[n.ID] = at
		r.mu.Unlock()
	}
	r.saveMarks(ctx, id, a)
}

// cronMessage is the payload of a reminder: a UserMessage, and what it is about.
type cronMessage struct {
	api.UserMessage

	Cron cronPart `json:"cron"`
}

type cronPart struct {
	ID         string    `json:"id"` // of the entry
	Due        time.Time `json:"due"`
	OnConflict string    `json:"on_conflict,omitempty"`
}

// frame returns the message for the time due.
func (n Reminder) frame(due, now time.Time) api.Frame {
	m := cronMessage{
		UserMessage: api.UserMessage{Text: n.Message, User: &api.User{ID: cronChannel, Name: n.ID}},
		Cron:        cronPart{ID: n.ID, Due: due, OnConflict: n.OnConflict},
	}
	payload, _ := json.Marshal(m) // strings and a time; it cannot fail
	return api.Frame{
		V: 1, Type: api.FrameUserMessage, TS: now, Payload: payload,
		Session: api.Session{Channel: cronChannel, ID: n.Session},
		MsgID:   fmt.Sprintf("cron-%s-%d", n.ID, due.Unix()),
	}
}

// Reminders returns the entries of an instance's agent, with the next time of each.
func (r *Runner) Reminders(id instance.ID) ([]Reminder, []time.Time) {
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.agents[id]
	if a == nil {
		return nil, nil
	}
	next := make([]time.Time, len(a.reminders))
	for i, n := range a.reminders {
		if n.Enabled {
			_, _, next[i] = n.When.look(a.marks[n.ID], now)
		}
	}
	return a.reminders, next
}
