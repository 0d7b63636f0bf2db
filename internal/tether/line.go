package tether

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/instance"
)

// line is what is known in memory of one instance's tether.
type line struct {
	id       instance.ID
	silence  time.Duration
	attended bool          // it has a courier; guarded by Tether.mu
	poked    chan struct{} // of one: the courier is to look
	gone     chan struct{} // closed when the instance is deleted

	mu   sync.Mutex // protects what follows; never held over I/O
	head int64      // Seq of the newest frame, as far as this daemon has stored any
	came chan struct{}
	ring ring
	// waiting is how many ingress frames the agent has not taken. A frame can be taken
	// before sent has counted it.
	waiting int
	newest  int64 // Seq of the newest of them
	seen    int64 // Seq up to which the courier knows of them
	trigger bool  // something came for which the instance is to be awake
	// there is set when the instance came up, or its agent spoke: what waits can be brought.
	// It says nothing any more when the instance sleeps.
	there    bool
	bringing bool // the courier is at it, since the instance last slept
	asleep   bool // the instance is not awake any more: the courier is to let go
	broken   bool // it ended by itself, and is to go on
	ends     int  // how often it did, since its agent took or answered something last
	work     work
	until    time.Time       // when work counts as over
	awake    context.Context //nolint:containedctx // of deliveries; ends when the instance sleeps
	sleep    context.CancelCauseFunc
	hungUp   bool
}

var errAsleep = errors.New("the instance is not awake any more")

func newLine(id instance.ID, limits Limits) *line {
	l := &line{
		id: id, silence: limits.Silence, poked: make(chan struct{}, 1), gone: make(chan struct{}), came: make(chan struct{}),
		ring: ring{limit: limits.Deltas, limitBytes: limits.DeltaBytes},
	}
	l.awake, l.sleep = context.WithCancelCause(context.Background())
	return l
}

// poke has the courier look what there is to do.
func (l *line) poke() {
	select {
	case l.poked <- struct{}{}:
	default: // it is about to look
	}
}

// resume is how a line begins after a restart of the daemon.
func (l *line) resume(waiting int, open []opened, until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting += waiting
	l.trigger = l.trigger || waiting > 0 || len(open) > 0
	l.work.open, l.until = open, until
}

// signal returns what is closed when something comes.
func (l *line) signal() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.came
}

// announce wakes those who read. The caller holds mu.
func (l *line) announce() {
	close(l.came)
	l.came = make(chan struct{})
}

// sent takes account of an ingress frame that is stored.
func (l *line) sent(seq int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.head = max(l.head, seq)
	l.waiting++
	l.newest = max(l.newest, seq)
	l.announce()
}

// again makes a frame that was sent before a reason to wake the instance, if it waits.
func (l *line) again() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.trigger = l.trigger || l.waiting > 0
}

// emitted takes account of a frame of the agent's: of a delta that has come, and of any
// other when it is stored. It reports whether the courier has something to do now.
func (l *line) emitted(f api.Frame, replyTo string, live bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if live {
		l.ring.push(delta{frame: f, replyTo: replyTo, at: l.head})
	} else {
		l.head = max(l.head, f.Seq)
	}
	l.announce()
	worked := len(l.work.open) > 0
	l.work.note(f)
	if len(l.work.open) == 0 {
		l.ends = 0
	}
	l.until = time.Now().Add(l.silence)
	// An agent that speaks is there: what waits can be brought.
	l.there = l.there || l.waiting > 0
	return l.trigger || l.there || worked && len(l.work.open) == 0
}

// saw says that the courier has read what waits, up to a frame. None of that wakes the
// instance again: it may be put to sleep before it is brought.
func (l *line) saw(seq int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = max(l.seen, seq)
}

// offered takes account of a frame that is about to be handed to the agent: it may answer
// before its receipt is seen.
func (l *line) offered(f api.Frame) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.work.note(f)
	l.until = time.Now().Add(l.silence)
}

// refused takes account of a frame that the agent has not taken.
func (l *line) refused(f api.Frame) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.work.forget(f.Seq)
}

// taken takes account of a frame that the agent has taken.
func (l *line) taken() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting--
	l.ends = 0
	l.until = time.Now().Add(l.silence)
}

// full reports whether no more frames can wait.
func (l *line) full(limit int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waiting >= limit
}

// cameUp takes account of an instance that runs, and reports whether that gives its courier
// something to do.
func (l *line) cameUp() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken = false
	busy := len(l.work.open) > 0 && time.Now().Before(l.until)
	if !l.bringing { // or it came up for that
		l.there = l.there || l.waiting > 0 || busy
	}
	if busy {
		l.until = time.Now().Add(l.silence) // while it slept it could say nothing
	}
	return l.trigger || l.there
}

// wentDown takes account of an instance that sleeps, or, if lost is set, whose memory is
// gone, and with it what its agent was at work with.
func (l *line) wentDown(lost bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.broken: // this is the end of that
		l.trigger = true
	case lost:
		l.work = work{}
	}
	l.asleep, l.there, l.bringing = true, false, false
	l.sleep(errAsleep)
	l.poke()
}

// maxEnds is how often an instance is started again for the same work: it may be that which
// ends it.
const maxEnds = 3

// broke takes account of an instance whose program, or whose machine if machine is set, has
// ended by itself. Its agent is started again to go on with what it was at work with, and
// for what was on its way to it.
func (l *line) broke(machine bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	atWork := len(l.work.open) > 0 && time.Now().Before(l.until)
	l.ends++
	l.broken = l.ends <= maxEnds && (atWork || machine && l.waiting > 0)
	if l.broken {
		l.trigger = true
		l.until = time.Now().Add(l.silence)
	} else {
		l.work = work{}
	}
	l.asleep, l.there, l.bringing = true, false, false
	l.sleep(errAsleep)
	l.poke()
}

// hangUp ends the line.
func (l *line) hangUp() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.hungUp {
		l.hungUp = true
		l.sleep(errAsleep)
		close(l.gone)
	}
}

// task is what a courier is to do.
type task struct {
	bring bool          // wake the instance, and bring what waits
	letGo bool          // let the instance sleep
	stay  time.Duration // how long at most to hold it awake for the agent's work
}

// next returns the courier's task. What made it necessary is done with.
func (l *line) next() task {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := task{bring: l.trigger || l.there || l.newest > l.seen, letGo: l.asleep}
	l.trigger, l.there, l.asleep, l.seen = false, false, false, max(l.seen, l.newest)
	l.bringing = t.bring
	if l.awake.Err() != nil {
		l.awake, l.sleep = context.WithCancelCause(context.Background())
	}
	if len(l.work.open) > 0 {
		t.stay = time.Until(l.until)
	}
	if t.stay <= 0 {
		t.stay, l.work = 0, work{}
	}
	return t
}

// whileAwake returns a context that ends when the instance sleeps, or with ctx.
func (l *line) whileAwake(ctx context.Context) (context.Context, func()) {
	l.mu.Lock()
	awake := l.awake
	l.mu.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(awake, func() { cancel(context.Cause(awake)) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// deltas returns the number of the next delta that comes.
func (l *line) deltas() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ring.end
}

// deltasAfter returns the number of the first delta behind a stored frame.
func (l *line) deltasAfter(seq int64) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ring.after(seq)
}

// deltasSince returns the deltas from number n on that are still there.
func (l *line) deltasSince(n int64) []delta {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ring.since(n)
}
