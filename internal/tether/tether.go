package tether

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/message"
)

// AgentPort is where agents listen, on the guest's 127.0.0.1.
const AgentPort = 7778

// Options is what a Tether is made of.
type Options struct {
	Rows      Rows
	Instances Instances
	Log       *slog.Logger
	Limits    Limits
	Port      uint16 // of agents; 0 is AgentPort
}

// Limits bounds what the tether keeps, and how long it waits. The zero value of a field is
// its default.
type Limits struct {
	Keep message.Keep
	// Waiting bounds the frames that wait for one agent: more are refused.
	Waiting int
	// Patience protects the host from instances in which nobody takes messages: it is how
	// long one is held awake without a frame taken.
	Patience time.Duration
	// Silence is how long an agent that has taken a message may say nothing before its
	// work is believed to be over.
	Silence time.Duration
	// Receipt protects a courier from an agent that accepts a message and does not answer.
	Receipt time.Duration
	// Deltas and DeltaBytes bound the ring of one instance.
	Deltas, DeltaBytes int
}

func (l *Limits) complete() {
	setDefault(&l.Keep.Frames, 50_000)
	setDefault(&l.Keep.Bytes, 64<<20)
	setDefault(&l.Keep.Age, 30*24*time.Hour)
	setDefault(&l.Waiting, 2_000)
	setDefault(&l.Patience, 2*time.Minute)
	setDefault(&l.Silence, 2*time.Minute)
	setDefault(&l.Receipt, 30*time.Second)
	setDefault(&l.Deltas, 1024)
	setDefault(&l.DeltaBytes, 1<<20)
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Tether is the messages of all instances of a daemon. Its methods may be called together.
type Tether struct {
	rows      Rows
	instances Instances
	log       *slog.Logger
	limits    Limits
	port      uint16
	ledger    *ledger

	ending context.Context //nolint:containedctx // ends with Close
	end    context.CancelCauseFunc
	wg     sync.WaitGroup // couriers, and who follows the instances

	mu     sync.Mutex // protects what follows; never held over I/O
	lines  map[instance.ID]*line
	closed bool
}

var errClosing = fault.New(fault.Unavailable, "aegisd is shutting down").WithHint("start it again: aegis up")

// New returns a Tether that works until Close. It does no I/O.
func New(o Options) *Tether {
	o.Limits.complete()
	setDefault(&o.Port, AgentPort)
	t := &Tether{
		rows: o.Rows, instances: o.Instances, log: o.Log, limits: o.Limits, port: o.Port,
		lines: map[instance.ID]*line{},
	}
	t.ending, t.end = context.WithCancelCause(context.Background())
	t.ledger = newLedger(o.Rows, o.Limits.Keep)
	return t
}

// Recover goes on where an earlier daemon ended: frames that wait are brought, and agents
// that were at work a moment ago are held awake. It is called once, when the instances are
// known.
func (t *Tether) Recover(ctx context.Context) error {
	t.wg.Go(t.follow)
	all, err := t.rows.LoadTethers(ctx)
	if err != nil {
		return err
	}
	for _, known := range all {
		id := instance.ID(known.Instance)
		if _, err := t.instances.Get(known.Instance); err != nil {
			continue // it goes with the instance
		}
		var open []opened
		if time.Since(known.Last) < t.limits.Silence {
			if open, err = t.unanswered(ctx, id); err != nil {
				return err
			}
		}
		if known.Waiting == 0 && len(open) == 0 {
			continue
		}
		l := t.line(id)
		l.resume(known.Waiting, open, known.Last.Add(t.limits.Silence))
		t.attend(l)
	}
	return nil
}

// unanswered returns the user's messages that an instance's agent has taken lately and not
// answered.
func (t *Tether) unanswered(ctx context.Context, id instance.ID) ([]opened, error) {
	const lately = 200
	page, err := t.rows.Frames(ctx, string(id), message.Query{Before: 1 << 62, Limit: lately})
	if err != nil {
		return nil, err
	}
	waiting, err := t.rows.Untaken(ctx, string(id), 1)
	if err != nil {
		return nil, err
	}
	var w work
	for _, f := range page.Frames {
		if len(waiting) > 0 && f.Seq >= waiting[0].Seq && isIngress(f) {
			continue
		}
		w.note(f)
	}
	return w.open, nil
}

// Close ends all: who reads is told, couriers let go of instances, and what was accepted is
// stored.
func (t *Tether) Close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.end(errClosing)
	t.wg.Wait()
	t.ledger.close()
}

// find returns the line of an instance.
func (t *Tether) find(ref string) (*line, instance.View, error) {
	v, err := t.instances.Get(ref)
	if err != nil {
		return nil, v, err
	}
	if v.Spec.Ephemeral {
		return nil, v, fault.New(fault.Conflict, "%s is of a run, and has no tether", v.Spec.Handle).
			WithHint("start what is to be talked to with: aegis instance start")
	}
	l := t.line(v.ID)
	// Or its deletion may have been told of before there was a line.
	if _, err := t.instances.Get(string(v.ID)); err != nil {
		t.forget(v.ID)
		return nil, v, err
	}
	return l, v, nil
}

// line returns the line of an instance, and makes it if need be.
func (t *Tether) line(id instance.ID) *line {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.lines[id]
	if l == nil {
		l = newLine(id, t.limits)
		t.lines[id] = l
	}
	return l
}

// known returns the line of an instance if there is one.
func (t *Tether) known(id instance.ID) *line {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lines[id]
}

// forget ends the line of an instance that is no more.
func (t *Tether) forget(id instance.ID) {
	t.mu.Lock()
	l := t.lines[id]
	delete(t.lines, id)
	t.mu.Unlock()
	if l != nil {
		l.hangUp()
	}
}

// attend makes sure that an instance has a courier, and has it look what there is to do.
func (t *Tether) attend(l *line) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return // the next daemon goes on
	}
	if !l.attended {
		l.attended = true
		t.wg.Go(func() { newCourier(t, l).run(t.ending) })
	}
	l.poke()
}

// follow tells the lines what becomes of their instances, until Close.
func (t *Tether) follow() {
	for t.ending.Err() == nil {
		changes, stop := t.instances.Watch()
		t.compare()
		seen := t.listen(changes)
		stop()
		if !seen {
			return // the core has ended
		}
	}
}

// listen passes on changes until there are no more, and reports whether there were any.
func (t *Tether) listen(changes <-chan instance.Change) (seen bool) {
	for {
		select {
		case c, ok := <-changes:
			if !ok {
				return seen
			}
			seen = true
			t.tell(c.ID, c.To, c.Why)
		case <-t.ending.Done():
			return seen
		}
	}
}

// compare looks at all instances that have a line: changes may have been missed.
func (t *Tether) compare() {
	t.mu.Lock()
	ids := slices.Collect(maps.Keys(t.lines))
	t.mu.Unlock()
	for _, id := range ids {
		v, err := t.instances.Get(string(id))
		if err != nil {
			t.forget(id)
			continue
		}
		t.tell(id, v.State, "")
	}
}

// tell tells a line of its instance's state, and why that is, if it is known.
func (t *Tether) tell(id instance.ID, s instance.State, why string) {
	l := t.known(id)
	if l == nil {
		return
	}
	if s == instance.Stopping || s == instance.Stopped {
		switch why {
		case instance.Died.String(), instance.Exited.String(), instance.Crashed.String():
			l.broke(why == instance.Died.String())
			return
		}
	}
	switch s { //nolint:exhaustive // on the way between these nothing is to be done
	case instance.Running:
		if l.cameUp() {
			t.attend(l)
		}
	case instance.Paused:
		l.wentDown(false)
	case instance.Stopping: // a restart leads on to another machine without a stop in between
		l.wentDown(true)
	case instance.Stopped:
		v, err := t.instances.Get(string(id))
		l.wentDown(err == nil && v.State == instance.Stopped && !v.Hibernated)
	case instance.Deleted:
		t.forget(id)
	}
}

// errGone is what who reads or sends is told when the instance is deleted meanwhile.
func errGone(id instance.ID) error {
	return fault.New(fault.NotFound, "there is no instance %q any more", id).WithHint("see: aegis instance list")
}
