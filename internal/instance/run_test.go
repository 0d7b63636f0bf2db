package instance

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

func checkNothingLeft(t *testing.T, w *stubWorld, s *Set) {
	t.Helper()
	if m, g := w.left(); m != 0 || g != 0 || s.Len() != 0 {
		t.Errorf("left: %d machines, %d folders, %d instances", m, g, s.Len())
	}
}

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStubWorld()
		s := NewSet(w.world())
		r, err := s.Run(t.Context(), Spec{Handle: "one", Command: []string{"true"}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Run(t.Context(), Spec{Handle: "one", Command: []string{"true"}}); fault.KindOf(err) != fault.Conflict {
			t.Errorf("second run of the same name: %v, want a conflict", err)
		}
		f, err := r.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if status, err := f.Status(); err != nil || status != 7 {
			t.Errorf("status = %d, %v", status, err)
		}
		if err := errors.Join(r.Close(), r.Close()); err != nil {
			t.Error(err)
		}
		checkNothingLeft(t, w, s)
		if r, err = s.Run(t.Context(), Spec{Handle: "one", Command: []string{"true"}}); err != nil {
			t.Fatalf("the name is not free again: %v", err)
		}
		if err := s.Close(t.Context(), StopAll); err != nil {
			t.Error(err)
		}
		if _, err := r.Recv(); fault.KindOf(err) != fault.Unavailable {
			t.Errorf("Recv over a shutdown = %v", err)
		}
		checkNothingLeft(t, w, s)
	})
}

func TestRunFails(t *testing.T) {
	short := fault.New(fault.Exhausted, "no memory").By(fault.Host)
	for name, c := range map[string]struct {
		set   func(*stubWorld)
		want  fault.Kind
		blame fault.Blame
	}{
		"start":          {func(w *stubWorld) { w.startErr = short }, fault.Exhausted, fault.Host},
		"link":           {func(w *stubWorld) { w.linkErr = short }, fault.Exhausted, fault.Host},
		"spawn":          {func(w *stubWorld) { w.spawnErr = short }, fault.Exhausted, fault.Host},
		"guest hangs":    {func(w *stubWorld) { w.link = time.Hour }, fault.Timeout, fault.Guest},
		"kernel panics":  {func(w *stubWorld) { w.dieAfter = 300 * time.Millisecond }, fault.Unavailable, fault.Guest},
		"panics, hang":   {func(w *stubWorld) { w.dieAfter, w.link = time.Second, time.Hour }, fault.Unavailable, fault.Guest},
		"driver is slow": {func(w *stubWorld) { w.start = time.Hour }, fault.Timeout, fault.Driver},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newStubWorld()
				c.set(w)
				s := NewSet(w.world())
				_, err := s.Run(t.Context(), Spec{Command: []string{"true"}})
				if fault.KindOf(err) != c.want || fault.BlameOf(err) != c.blame {
					t.Errorf("err = %v (%s by %q), want %s by %q", err, fault.KindOf(err), fault.BlameOf(err), c.want, c.blame)
				}
				checkNothingLeft(t, w, s)
			})
		})
	}
}

func TestMachineDiesUnderRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStubWorld()
		w.dieAfter = 1500 * time.Millisecond
		s := NewSet(w.world())
		r, err := s.Run(t.Context(), Spec{Command: []string{"sleep"}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Recv(); fault.BlameOf(err) != fault.Guest {
			t.Errorf("Recv = %v, want the panic", err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		checkNothingLeft(t, w, s)
	})
}

// TestRunCanceledAnywhere ends the client at every moment of a run's life.
func TestRunCanceledAnywhere(t *testing.T) {
	for after := time.Duration(0); after < 1300*time.Millisecond; after += 50 * time.Millisecond {
		t.Run(after.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newStubWorld()
				s := NewSet(w.world())
				gone := errors.New("client gone")
				ctx, cancel := context.WithTimeoutCause(t.Context(), after, gone)
				defer cancel()
				r, err := s.Run(ctx, Spec{Command: []string{"sleep"}})
				if err != nil && !errors.Is(err, gone) {
					t.Errorf("err = %v", err)
				}
				if err == nil {
					err = r.Close()
					if err != nil {
						t.Error(err)
					}
				}
				checkNothingLeft(t, w, s)
			})
		})
	}
}

// TestInterleavings has users and clients come at random moments to a machine that is
// slow and sometimes dies; nothing may hang, double or leak.
func TestInterleavings(t *testing.T) {
	rounds := 2000
	if testing.Short() {
		rounds = 200
	}
	for seed := range rounds {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(seed), 1))
			w := newStubWorld()
			w.nets.set(80, stubPort{after: time.Duration(rng.IntN(300)) * time.Millisecond, loopback: rng.IntN(2) == 0})
			if rng.IntN(3) == 0 {
				w.dieAfter = time.Duration(rng.IntN(4000)) * time.Millisecond
			}
			s := NewSet(w.world())
			spec := Spec{Handle: fmt.Sprint("h", seed), Command: []string{"x"}, PauseAfter: 500 * time.Millisecond, StopAfter: 700 * time.Millisecond, Expose: []Expose{{Guest: 80}}}
			v, err := s.Create(t.Context(), spec)
			if err != nil {
				t.Fatal(err)
			}
			a, err := s.find(string(v.ID))
			if err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			for range 12 {
				at := time.Duration(rng.IntN(5000)) * time.Millisecond
				do := askers[rng.IntN(len(askers))]
				patience := time.Duration(1+rng.IntN(3000)) * time.Millisecond
				wg.Go(func() {
					time.Sleep(at)
					ctx, cancel := context.WithTimeout(t.Context(), patience)
					defer cancel()
					do(ctx, t, w, a, patience)
				})
			}
			wg.Wait()
			synctest.Wait()
			if m, _ := w.left(); m > 1 {
				t.Errorf("seed %d: %d machines for one instance", seed, m)
			}
			if v, _ := s.Get(string(v.ID)); len(v.Holds) != 0 {
				t.Errorf("seed %d: still held by %v", seed, v.Holds)
			}
			if err := s.Delete(t.Context(), string(v.ID)); err != nil {
				t.Error(err)
			}
			checkNothingLeft(t, w, s)
			end(t, w, s)
		})
	}
}

// asker is somebody who wants something of an instance, and stays for a while.
type asker func(ctx context.Context, t *testing.T, w *stubWorld, a *actor, stay time.Duration)

var askers = []asker{
	explicit(Pause), explicit(Hibernate), explicit(Stop), explicit(Disable), explicit(Restart),
	holder(Start), holder(Acquire), client, client, browser, exposer,
}

func explicit(kind EventKind) asker {
	return func(ctx context.Context, _ *testing.T, _ *stubWorld, a *actor, _ time.Duration) { _ = a.ask(ctx, kind) }
}

func holder(kind EventKind) asker {
	return func(ctx context.Context, t *testing.T, _ *stubWorld, a *actor, stay time.Duration) {
		t.Helper()
		h, l, err := a.hold(ctx, kind, "test")
		if err != nil {
			return
		}
		if l == nil {
			t.Error("a hold without a machine")
		}
		time.Sleep(stay)
		a.release(h)
	}
}

// client comes through a public port.
func client(ctx context.Context, _ *testing.T, w *stubWorld, a *actor, stay time.Duration) {
	for _, e := range a.view.Load().Spec.Expose {
		if d := w.doors.at(e.Public); d != nil {
			_ = d.visit(ctx, stay)
		}
	}
}

// browser comes through the HTTP router, which keeps the connection.
func browser(ctx context.Context, _ *testing.T, _ *stubWorld, a *actor, stay time.Duration) {
	awake, err := a.set.Awake(ctx, string(a.id), "HTTP request")
	if err != nil {
		return
	}
	c, err := awake.Dial(ctx, 80)
	awake.Release()
	if err != nil {
		return
	}
	time.Sleep(stay)
	_ = c.Close()
}

// exposer opens another port, moves it and closes it.
func exposer(ctx context.Context, _ *testing.T, _ *stubWorld, a *actor, stay time.Duration) {
	for _, e := range []Expose{{Guest: 81}, {Guest: 81, Public: 8081}} {
		_, _ = a.set.Expose(ctx, string(a.id), e)
	}
	time.Sleep(stay / 2)
	_ = a.set.Unexpose(ctx, string(a.id), 81)
}

// TestRecover starts a daemon over what a killed one left: a machine that runs, and
// a folder without one.
func TestRecover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStubWorld()
		dead := NewSet(w.world())
		if _, err := dead.Run(t.Context(), Spec{Command: []string{"sleep"}}); err != nil {
			t.Fatal(err)
		}
		w.ground["inst-of-a-killed-boot"] = true
		s := NewSet(w.world())
		if err := s.Recover(t.Context()); err != nil {
			t.Error(err)
		}
		checkNothingLeft(t, w, s)
		if err := dead.Close(t.Context(), StopAll); err != nil {
			t.Error(err)
		}
	})
}

func TestSpecComplete(t *testing.T) {
	for name, s := range map[string]Spec{
		"no command":   {},
		"empty word":   {Command: []string{""}},
		"bad handle":   {Command: []string{"x"}, Handle: "../x"},
		"long handle":  {Command: []string{"x"}, Handle: string(make([]byte, 64))},
		"little":       {Command: []string{"x"}, Memory: 1},
		"negative cpu": {Command: []string{"x"}, VCPUs: -1},
		"small disk":   {Command: []string{"x"}, Disk: 1},
		"large disk":   {Command: []string{"x"}, Disk: MaxDisk + 1},
		"bad env":      {Command: []string{"x"}, Env: map[string]string{"A=B": ""}},
		"huge":         {Command: []string{"x", string(make([]byte, MaxCommand))}},
	} {
		if err := s.Complete(Defaults{}); fault.KindOf(err) != fault.Invalid || fault.HintOf(err) == "" {
			t.Errorf("%s: %v (hint %q), want an invalid request with a hint", name, err, fault.HintOf(err))
		}
	}
	ok := Spec{Command: []string{"x"}}
	if err := ok.Complete(Defaults{}); err != nil || ok.Memory != DefaultMemory || ok.VCPUs != 1 || ok.Disk != DefaultDisk {
		t.Errorf("defaults = %+v, %v", ok, err)
	}
}

var _ vmm.Driver = (*stubWorld)(nil)
