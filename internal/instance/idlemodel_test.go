package instance

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// idleModel is the idle policy in a few words: an instance that somebody holds is awake,
// and one that nobody has held and whose guest has done nothing for its time is asleep, and
// after some more time on disk. The test compares the core with it, at moments when the core
// is not in between.
type idleModel struct {
	mu       sync.Mutex
	holds    int       // granted, and not given back
	doings   int       // of the guest by itself
	asking   int       // for a hold
	last     time.Time // when any of these, or of what follows, was last so
	excused  bool      // something stronger than holds has put it to sleep, or ended it
	failures int       // of wakes, that were not made to fail
	began    time.Time // the last of the doings
	kept     bool      // the guest was seen awake long after that: it keeps itself awake
}

// note changes the model.
func (m *idleModel) note(how func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	how()
	m.last = time.Now()
}

const (
	modelPause = 40 * time.Second
	modelStop  = 3 * time.Minute
	// modelSlack is what the core may be late by: two windows of the guest's reports, and
	// the operations themselves.
	modelSlack = 2*idleWindow + 10*time.Second
)

// judge says what is wrong with what the core looks like.
func (m *idleModel) judge(v View, machines int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	quiet := time.Since(m.last)
	if m.holds > 0 || m.doings > 0 || m.asking > 0 {
		quiet = 0
	}
	awake := v.State == Running || v.State == Booting || v.State == Resuming
	if m.doings == 0 || m.excused {
		m.kept = false
	} else if v.State == Running && time.Since(m.began) > 2*idleWindow {
		m.kept = true
	}
	switch {
	case m.kept && !awake:
		return fmt.Errorf("it is %s, and its guest has worked for %s", v.State, time.Since(m.began))
	case m.holds > 0 && !m.excused && !awake:
		return fmt.Errorf("it is %s with %d holds", v.State, m.holds)
	case quiet > modelPause+modelSlack && v.State == Running:
		return fmt.Errorf("it is awake after %s of nothing; holds %v", quiet, v.Holds)
	case quiet > modelPause+modelStop+2*modelSlack && (v.State != Stopped || machines > 0):
		return fmt.Errorf("it is %s with %d machines after %s of nothing", v.State, machines, quiet)
	}
	return nil
}

// modelWorld is an instance with the model beside it, and moods of its host.
type modelWorld struct {
	*stubWorld

	model    idleModel
	set      *Set
	rand     *rand.Rand
	wg       sync.WaitGroup
	busy     atomic.Bool // the guest computes or downloads; one at a time
	noStarts atomic.Int32
	noSaves  atomic.Int32
}

// moodyDriver and moodyGround fail as often as they are told to.
type moodyDriver struct {
	*stubWorld
	w *modelWorld
}

func (d moodyDriver) Start(ctx context.Context, spec vmm.Spec, src vmm.Source) (vmm.Machine, error) {
	if d.w.noStarts.Add(-1) >= 0 {
		return nil, errMood
	}
	return d.stubWorld.Start(ctx, spec, src)
}

type moodyGround struct {
	*stubWorld
	w *modelWorld
}

func (g moodyGround) Save(ctx context.Context, id ID, m vmm.Machine) error {
	if g.w.noSaves.Add(-1) >= 0 {
		g.w.model.note(func() {}) // it tries again, after its time
		return errMood
	}
	return g.stubWorld.Save(ctx, id, m)
}

var errMood = fault.New(fault.Exhausted, "the host has no room")

// acts is what may happen, each for a while.
var acts = []func(*modelWorld, context.Context, time.Duration){
	(*modelWorld).hold, (*modelWorld).hold, (*modelWorld).exec, (*modelWorld).visit,
	(*modelWorld).compute, (*modelWorld).download, (*modelWorld).tick,
	(*modelWorld).request, (*modelWorld).die, (*modelWorld).failStart, (*modelWorld).failSave,
	(*modelWorld).giveUp, (*modelWorld).adjust,
}

// obtain is a wake as clients do it: one that fails because of the host's mood, or because
// of another request, is tried again.
func (w *modelWorld) obtain(try func() error) bool {
	w.model.note(func() { w.model.asking++ })
	defer w.model.note(func() { w.model.asking-- })
	var err error
	for range 8 {
		if err = try(); err == nil {
			return true
		}
	}
	w.model.note(func() { w.model.failures++ })
	return false
}

// hold is a lease, or anything else that keeps it awake.
func (w *modelWorld) hold(ctx context.Context, d time.Duration) {
	a, err := w.set.find("web")
	if err != nil {
		return
	}
	var h *hold
	begin := time.Now()
	if !w.obtain(func() (err error) {
		h, _, err = a.hold(ctx, Acquire, "model")
		if err == nil {
			w.model.note(func() { w.model.holds++; w.model.excused = false })
		}
		return err
	}) {
		return
	}
	if took := time.Since(begin); took > time.Minute {
		w.model.note(func() { w.model.failures++ })
	}
	time.Sleep(d)
	w.model.note(func() { w.model.holds-- })
	a.release(h)
}

// exec is a command, to its end or that of its machine.
func (w *modelWorld) exec(ctx context.Context, _ time.Duration) {
	var x *Exec
	if !w.obtain(func() (err error) {
		if x, err = w.set.Exec(ctx, "web", ExecSpec{Command: []string{"make"}}); err == nil {
			w.model.note(func() { w.model.holds++; w.model.excused = false })
		}
		return err
	}) {
		return
	}
	_, _ = x.Recv() // the end of either
	w.model.note(func() { w.model.holds-- })
	_ = x.Close()
}

// visit is a client of its port, which may be cut off.
func (w *modelWorld) visit(ctx context.Context, d time.Duration) {
	v, err := w.set.Get("web")
	if err != nil {
		return
	}
	door := w.doors.at(v.Spec.Expose[0].Public)
	w.model.note(func() { w.model.asking++ })
	defer w.model.note(func() { w.model.asking-- })
	_ = door.visit(ctx, d)
}

// compute and download are the guest's own doing: it keeps itself awake, and wakes nobody.
func (w *modelWorld) compute(_ context.Context, d time.Duration) {
	w.alone(func() {
		w.use(.3)
		time.Sleep(d)
		w.use(0)
	})
}

func (w *modelWorld) download(_ context.Context, d time.Duration) {
	w.alone(func() {
		for range int(d / time.Second) {
			w.cross(20 << 10)
			time.Sleep(time.Second)
		}
	})
}

func (w *modelWorld) alone(work func()) {
	if !w.busy.CompareAndSwap(false, true) {
		return
	}
	defer w.busy.Store(false)
	w.model.note(func() { w.model.doings++; w.model.began, w.model.kept = time.Now(), false })
	work()
	w.model.note(func() { w.model.doings-- })
}

// tick is too little to count.
func (w *modelWorld) tick(_ context.Context, d time.Duration) {
	if !w.busy.CompareAndSwap(false, true) {
		return
	}
	defer w.busy.Store(false)
	w.use(.03)
	time.Sleep(d)
	w.use(0)
}

// request is an explicit one: it is obeyed whatever holds the instance.
func (w *modelWorld) request(ctx context.Context, d time.Duration) {
	w.model.note(func() { w.model.excused = true })
	do := []func(*Set, context.Context, string) error{(*Set).Pause, (*Set).Hibernate, (*Set).Stop}[int(d)%3]
	_ = do(w.set, ctx, "web") // it may be stopped already, or about to be woken
	w.model.note(func() { w.model.excused = true })
}

// die ends the machine under all of them.
func (w *modelWorld) die(context.Context, time.Duration) {
	w.mu.Lock()
	var all []*stubMachine
	for m := range w.machines {
		all = append(all, m)
	}
	w.mu.Unlock()
	if len(all) > 0 {
		w.model.note(func() { w.model.excused = true })
	}
	for _, m := range all {
		m.end(vmm.Exit{Reason: vmm.Panicked, Detail: "out of luck"})
	}
}

func (w *modelWorld) failStart(context.Context, time.Duration) { w.noStarts.Store(1) }
func (w *modelWorld) failSave(context.Context, time.Duration)  { w.noSaves.Store(2) }

// giveUp is a client that does not wait for the end of a wake.
func (w *modelWorld) giveUp(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithTimeoutCause(ctx, d%(2*time.Second), errors.New("too slow"))
	defer cancel()
	w.model.note(func() { w.model.asking++ })
	_ = w.set.wake(ctx, "web", Acquire)
	w.model.note(func() { w.model.asking-- })
}

// adjust changes nothing, but says so.
func (w *modelWorld) adjust(ctx context.Context, _ time.Duration) {
	_, _ = w.set.Adjust(ctx, "web", Settings{PauseAfter: new(modelPause)}) // or it is being deleted
	w.model.note(func() {})
}

// TestIdleModel lets days go by, with everything that may happen, and holds the core to the
// model: no wake is lost, nobody who holds it finds it asleep, and what is idle sleeps.
func TestIdleModel(t *testing.T) {
	seeds, days := 3, 2
	if os.Getenv("AEGIS_STRESS") == "1" {
		seeds, days = 50, 10
	}
	for seed := range seeds {
		t.Run(strconv.Itoa(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { idleDays(t, uint64(seed), days) })
		})
	}
}

func idleDays(t *testing.T, seed uint64, days int) {
	t.Helper()
	w := &modelWorld{stubWorld: newStubWorld(), rand: rand.New(rand.NewPCG(seed, 1))}
	w.runs, w.execs = 1000*time.Hour, 90*time.Second
	world := w.world()
	world.Driver, world.Ground = moodyDriver{w.stubWorld, w}, moodyGround{w.stubWorld, w}
	w.set = NewSet(world)
	spec := Spec{Handle: "web", Command: []string{"serve"}, PauseAfter: modelPause, StopAfter: modelStop, Expose: []Expose{{Guest: 80}}}
	if _, err := w.set.Launch(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	w.model.last = time.Now()
	slept, woke := 0, 0
	for end := time.Now().Add(time.Duration(days) * 24 * time.Hour); time.Now().Before(end) && !t.Failed(); {
		// Most of what happens comes in flocks; between them there is time to fall asleep.
		wait := w.span(20 * time.Second)
		if w.rand.IntN(6) == 0 {
			wait = w.span(15 * time.Minute)
		}
		for rest := wait; rest > 0 && !t.Failed(); rest -= 3 * time.Second {
			time.Sleep(min(rest, 3*time.Second))
			synctest.Wait()
			v, err := w.set.Get("web")
			if err != nil {
				t.Fatal(err)
			}
			machines, _ := w.left()
			switch v.State { //nolint:exhaustive // the others are seldom seen
			case Stopped:
				slept++
			case Running:
				woke++
			}
			if err := w.model.judge(v, machines); err != nil {
				t.Errorf("%s: %v", time.Now().Format(time.DateTime), err)
			}
		}
		act, d := acts[w.rand.IntN(len(acts))], w.span(2*time.Minute)
		w.wg.Go(func() { act(w, t.Context(), d) })
	}
	w.wg.Wait()
	if w.model.holds != 0 || w.model.failures != 0 {
		t.Errorf("%d holds are left, %d wakes were lost", w.model.holds, w.model.failures)
	}
	if slept == 0 || woke == 0 || w.wakes == 0 {
		t.Errorf("seen asleep %d times, awake %d times, %d wakes from disk: the test tests nothing", slept, woke, w.wakes)
	}
	closeSet(t, w.set, StopAll)
}

// span returns a random time of a mean, of an exponential distribution.
func (w *modelWorld) span(mean time.Duration) time.Duration {
	return time.Duration(w.rand.ExpFloat64()*float64(mean)) + time.Millisecond
}
