package schedule

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/logattr"
)

const (
	// startsAtOnce is how many instances are woken together: a host full of them would
	// only make all of them late at every full hour.
	startsAtOnce = 4
	// maxWait is how long the clock is trusted where jumps are not told.
	maxWait = time.Hour
)

// Config is what a Runner is made of.
type Config struct {
	Store     Store
	Instances Instances
	Agents    Agents           // nil is none
	Now       func() time.Time // nil is time.Now
	Log       *slog.Logger
}

// Runner owns the schedules of all instances. Its methods may be called together, after
// Load.
type Runner struct {
	conf   Config
	log    *slog.Logger
	wake   chan struct{} // has a token when there may be something to do
	starts chan struct{} // has a token for each start under way
	wg     sync.WaitGroup

	mu     sync.Mutex // protects what follows; never held over I/O
	jobs   map[ID]*job
	agents map[instance.ID]*agent
	stale  map[instance.ID]bool // agents whose file is to be read
}

// job is an Entry and what is under way of it. While busy is set its goroutine alone
// stores it.
type job struct {
	Entry

	busy bool
	told bool // that a time is left out, during this run
}

// New returns a Runner without schedules.
func New(c Config) *Runner {
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Runner{
		conf: c, log: c.Log, wake: make(chan struct{}, 1), starts: make(chan struct{}, startsAtOnce),
		jobs: map[ID]*job{}, agents: map[instance.ID]*agent{}, stale: map[instance.ID]bool{},
	}
}

// Load takes the schedules from the Store: those that can be read, also where it returns an
// error. It is called once, before anything else.
func (r *Runner) Load(ctx context.Context) error {
	entries, err := r.conf.Store.LoadSchedules(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range entries {
		if !e.Ran.IsZero() && e.Result == "" {
			e.Result = "cut off: the daemon ended"
		}
		r.jobs[e.ID] = &job{Entry: e}
	}
	return err
}

// Run does what is due, until ctx ends and all that it started has ended.
func (r *Runner) Run(ctx context.Context) {
	defer r.wg.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-r.wake:
		case <-ctx.Done():
			return
		}
		r.readAgents(ctx)
		now := r.now()
		next := earliest(r.fireEntries(ctx, now), r.fireAgents(ctx, now))
		if r.conf.Agents != nil {
			next = earliest(next, now.Add(slowly))
		}
		if next.IsZero() {
			timer.Stop()
			continue
		}
		timer.Reset(min(next.Sub(now), maxWait))
	}
}

// now is the time on the wall: spans of it are those that a clock on the wall shows.
func (r *Runner) now() time.Time { return r.conf.Now().Round(0) }

// Poke has the Runner look again, because the clock has jumped.
func (r *Runner) Poke() {
	select {
	case r.wake <- struct{}{}:
	default: // it is about to
	}
}

// earliest returns the first of times that are not zero.
func earliest(times ...time.Time) (first time.Time) {
	for _, t := range times {
		if first.IsZero() || !t.IsZero() && t.Before(first) {
			first = t
		}
	}
	return first
}

// Add makes a schedule. It is remembered when Add returns.
func (r *Runner) Add(ctx context.Context, id instance.ID, w When, command []string) (Entry, error) {
	now := r.now()
	e := Entry{ID: NewID(), Instance: id, When: w, Command: command, Created: now, Last: now}
	if err := e.check(now); err != nil {
		return Entry{}, err
	}
	j := &job{Entry: e, busy: true} // until it is stored
	r.mu.Lock()
	count := len(r.of(id))
	if count < MaxPerInstance {
		r.jobs[e.ID] = j
	}
	r.mu.Unlock()
	if count >= MaxPerInstance {
		return Entry{}, fault.New(fault.Conflict, "the instance has %d schedules, and can have no more", count).
			WithHint("delete one: aegis instance unschedule X ID")
	}
	err := r.conf.Store.AddSchedule(ctx, e)
	r.mu.Lock()
	j.busy = false
	if err != nil {
		delete(r.jobs, e.ID)
	}
	r.mu.Unlock()
	if err != nil {
		return Entry{}, err
	}
	r.Poke()
	return e, nil
}

// List returns the schedules of an instance, oldest first, with the next time of each.
func (r *Runner) List(id instance.ID) ([]Entry, []time.Time) {
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	entries := r.of(id)
	next := make([]time.Time, len(entries))
	for i := range entries {
		next[i] = entries[i].next(now)
	}
	return entries, next
}

// of returns the entries of an instance. The caller holds mu.
func (r *Runner) of(id instance.ID) []Entry {
	var out []Entry
	for _, j := range r.jobs {
		if j.Instance == id {
			out = append(out, j.Entry)
		}
	}
	slices.SortFunc(out, func(a, b Entry) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return out
}

// Remove forgets a schedule of an instance. A run of it that is under way goes on.
func (r *Runner) Remove(ctx context.Context, id instance.ID, schedule ID) error {
	r.mu.Lock()
	j, ok := r.jobs[schedule]
	r.mu.Unlock()
	if !ok || j.Instance != id {
		return fault.New(fault.NotFound, "the instance has no schedule %q", schedule).WithHint("see: aegis instance schedules X")
	}
	if err := r.conf.Store.DeleteSchedule(ctx, schedule); err != nil {
		return err
	}
	r.drop(schedule)
	return nil
}

func (r *Runner) drop(id ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.jobs, id)
}

// Follow forgets what belonged to instances that are deleted, and reads agents' files when
// they may have changed. It returns when changes is closed.
func (r *Runner) Follow(changes <-chan instance.Change) {
	for c := range changes {
		r.mu.Lock()
		if c.To == instance.Deleted {
			for id, j := range r.jobs {
				if j.Instance == c.ID {
					delete(r.jobs, id)
				}
			}
			delete(r.agents, c.ID)
			delete(r.stale, c.ID)
		} else if r.conf.Agents != nil {
			r.stale[c.ID] = true
		}
		r.mu.Unlock()
		if r.conf.Agents != nil {
			r.Poke()
		}
	}
}

// fireEntries begins what is due at now, and returns when something is next.
func (r *Runner) fireEntries(ctx context.Context, now time.Time) (next time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, j := range r.jobs {
		j.Last = sane(j.Last, now)
		due, missed, then := j.When.look(j.Last, now)
		next = earliest(next, then)
		over := then.IsZero() && !j.busy // of one moment that an earlier daemon began with
		if due.IsZero() && missed.IsZero() && !over {
			continue
		}
		j.Last = earliest(due, now)
		if !j.busy {
			j.busy, j.told = true, false
			r.wg.Go(func() { r.run(ctx, id, due, missed) })
		} else if !j.told && !due.IsZero() {
			j.told = true
			r.wg.Go(func() { r.tell(j.Instance, id, "due, but the last run has not ended: left out") })
		}
	}
	return next
}

// run is one time of a schedule, or several that are too old.
func (r *Runner) run(ctx context.Context, id ID, due, missed time.Time) {
	e, ok := r.change(ctx, id, func(e *Entry) {
		if !due.IsZero() {
			e.Ran, e.Exec, e.Result = r.now(), "", ""
		}
	})
	if !missed.IsZero() {
		r.tell(e.Instance, id, "what was due since %s was missed, and is too old", missed.Format(time.DateTime))
	}
	if ok && !due.IsZero() {
		exec, result := r.execute(ctx, e)
		if ctx.Err() != nil {
			result = "cut off: the daemon ended"
		}
		r.change(context.WithoutCancel(ctx), id, func(e *Entry) { e.Exec, e.Result = exec, result })
	}
	if e.When.cron == nil {
		if err := r.conf.Store.DeleteSchedule(context.WithoutCancel(ctx), id); err != nil {
			r.log.ErrorContext(ctx, "forget a schedule", logattr.Schedule(id), logattr.Err(err))
		}
		r.drop(id)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if j, ok := r.jobs[id]; ok {
		j.busy = false
	}
}

// change changes an entry and stores it. One that is gone meanwhile is reported as not ok.
func (r *Runner) change(ctx context.Context, id ID, how func(*Entry)) (e Entry, ok bool) {
	r.mu.Lock()
	j, ok := r.jobs[id]
	if ok {
		how(&j.Entry)
		e = j.Entry
	}
	r.mu.Unlock()
	if !ok {
		return e, false
	}
	// It goes on without: at worst a run is repeated after a crash.
	if err := r.conf.Store.UpdateSchedule(ctx, e); err != nil {
		r.log.ErrorContext(ctx, "remember a schedule", logattr.Schedule(id), logattr.Err(err))
	}
	return e, true
}

// execute runs an entry's command to its end, and says how it ended.
func (r *Runner) execute(ctx context.Context, e Entry) (exec, result string) {
	running, err := r.start(ctx, e)
	switch {
	case fault.KindOf(err) == fault.NotFound:
		r.drop(e.ID) // with its instance
		return "", ""
	case err != nil:
		r.log.WarnContext(ctx, "a schedule did not run", logattr.Instance(e.Instance), logattr.Schedule(e.ID), logattr.Err(err))
		r.tell(e.Instance, e.ID, "not run: %v", err)
		return "", "not run: " + err.Error()
	}
	r.tell(e.Instance, e.ID, "runs as %s", running.ID())
	status, err := running.Wait()
	switch {
	case err != nil:
		r.log.WarnContext(ctx, "a schedule was cut off", logattr.Instance(e.Instance), logattr.Schedule(e.ID), logattr.Err(err))
		result = "cut off: " + err.Error()
	case status != 0:
		result = fmt.Sprintf("exit %d", status)
	default:
		return running.ID(), "exit 0"
	}
	r.tell(e.Instance, e.ID, "%s ended: %s", running.ID(), result)
	return running.ID(), result
}

// start starts an entry's command, when it is its turn.
func (r *Runner) start(ctx context.Context, e Entry) (Running, error) {
	select {
	case r.starts <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-r.starts }()
	return r.conf.Instances.Start(ctx, e.Instance, e.Command)
}

// tell writes a line about a schedule into its instance's log.
func (r *Runner) tell(id instance.ID, schedule ID, format string, args ...any) {
	r.conf.Instances.Note(id, fmt.Sprintf("schedule %s: %s", schedule, fmt.Sprintf(format, args...)))
}
