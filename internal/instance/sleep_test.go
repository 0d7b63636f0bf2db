package instance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// sleeper makes a world with one instance, web, whose program runs for a day.
func sleeper(t *testing.T, with ...func(*stubWorld)) (*stubWorld, *Set) {
	t.Helper()
	w := newStubWorld()
	w.runs = 24 * time.Hour
	for _, f := range with {
		f(w)
	}
	s := NewSet(w.world())
	_, err := s.Launch(t.Context(), Spec{Handle: "web", Command: []string{"serve"}, PauseAfter: time.Minute, StopAfter: 5 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	return w, s
}

func closeSet(t *testing.T, s *Set, how Leaving) {
	t.Helper()
	if err := s.Close(t.Context(), how); err != nil {
		t.Error(err)
	}
}

func isHibernated(t *testing.T, s *Set) bool {
	t.Helper()
	v, err := s.Get("web")
	if err != nil {
		t.Fatal(err)
	}
	return v.Hibernated
}

// TestFallsAsleep: idle, paused, hibernated, and awake where it was.
func TestFallsAsleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := sleeper(t)
		time.Sleep(62 * time.Second)
		wantState(t, s, "web", Paused)
		time.Sleep(6 * time.Minute)
		wantState(t, s, "web", Stopped)
		if m, _ := w.left(); m != 0 || !isHibernated(t, s) {
			t.Errorf("%d machines, hibernated %v", m, isHibernated(t, s))
		}
		if err := s.Resume(t.Context(), "web"); err != nil {
			t.Fatal(err)
		}
		wantState(t, s, "web", Running)
		if w.boots != 1 || w.wakes != 1 || isHibernated(t, s) || len(w.saved) != 0 {
			t.Errorf("%d boots, %d wakes, hibernated %v, saved %v", w.boots, w.wakes, isHibernated(t, s), w.saved)
		}
		closeSet(t, s, StopAll)
	})
}

// TestExecOverHibernation: a command under way goes on in the machine that wakes, and
// its client notices nothing.
func TestExecOverHibernation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s := sleeper(t, func(w *stubWorld) { w.execs = 2 * time.Hour })
		x, err := s.Exec(t.Context(), "web", ExecSpec{Command: []string{"sleep"}})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Minute) // it is held awake
		x2, err := s.Exec(t.Context(), "web", ExecSpec{Command: []string{"sleep"}})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Hibernate(t.Context(), "web"); err != nil {
			t.Fatal(err)
		}
		wantState(t, s, "web", Stopped)
		time.Sleep(time.Hour)
		if !isHibernated(t, s) {
			t.Error("a command under way woke it")
		}
		if err := s.Resume(t.Context(), "web"); err != nil {
			t.Fatal(err)
		}
		if f, err := x2.Recv(); err != nil || f.Type != frame.Exit {
			t.Errorf("the command's end is %v, %v", f, err)
		}
		if err := errors.Join(x.Close(), x2.Close()); err != nil {
			t.Error(err)
		}
		closeSet(t, s, StopAll)
	})
}

// TestWantedWhileSaving: who comes while memory is being saved gets the machine that is
// still there.
func TestWantedWhileSaving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := sleeper(t, func(w *stubWorld) { w.saving = time.Minute })
		time.Sleep(62*time.Second + 5*time.Minute)
		wantState(t, s, "web", Saving)
		begin := time.Now()
		if err := s.Resume(t.Context(), "web"); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took > time.Second {
			t.Errorf("the wake waited %v for the save", took)
		}
		wantState(t, s, "web", Running)
		if w.wakes != 0 || len(w.saved) != 0 {
			t.Errorf("%d wakes, saved %v", w.wakes, w.saved)
		}
		closeSet(t, s, StopAll)
	})
}

// TestDiesWhileSaving: a machine dies when its memory is safe already. What is saved is
// whole, and wakes where it was.
func TestDiesWhileSaving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := sleeper(t, func(w *stubWorld) { w.saving = time.Minute })
		go func() {
			time.Sleep(30 * time.Second)
			w.mu.Lock()
			machines := slices.Collect(maps.Keys(w.machines))
			w.mu.Unlock()
			for _, m := range machines {
				m.end(vmm.Exit{Reason: vmm.Died})
			}
		}()
		if err := s.Hibernate(t.Context(), "web"); err != nil {
			t.Fatal(err)
		}
		wantState(t, s, "web", Stopped)
		if !isHibernated(t, s) {
			t.Error("its memory is not saved")
		}
		if err := s.Resume(t.Context(), "web"); err != nil {
			t.Fatal(err)
		}
		wantState(t, s, "web", Running)
		if w.boots != 1 || w.wakes != 1 {
			t.Errorf("%d boots, %d wakes", w.boots, w.wakes)
		}
		closeSet(t, s, StopAll)
	})
}

func TestSaveFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := sleeper(t)
		w.saveErr = fault.New(fault.Exhausted, "the disk is full")
		if err := s.Hibernate(t.Context(), "web"); fault.KindOf(err) != fault.Exhausted {
			t.Errorf("err = %v", err)
		}
		wantState(t, s, "web", Paused)
		if err := s.Resume(t.Context(), "web"); err != nil {
			t.Error(err)
		}
		if w.boots != 1 || w.wakes != 0 {
			t.Errorf("%d boots, %d wakes", w.boots, w.wakes)
		}
		closeSet(t, s, PutAsleep) // it cannot, and stops
	})
}

// TestSavedMemoryIsOfNoUse: the machine boots and says why, and what ran in its memory
// has ended.
func TestSavedMemoryIsOfNoUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := sleeper(t)
		x, err := s.Exec(t.Context(), "web", ExecSpec{Command: []string{"sleep"}})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Hibernate(t.Context(), "web"); err != nil {
			t.Fatal(err)
		}
		w.restoreErr = fault.New(fault.Exhausted, "no memory")
		if err := s.Resume(t.Context(), "web"); fault.KindOf(err) != fault.Exhausted {
			t.Errorf("err = %v", err)
		}
		if !isHibernated(t, s) {
			t.Error("the memory was given up for want of room")
		}
		w.restoreErr = fmt.Errorf("load: %w", vmm.ErrDamaged)
		if err := s.Resume(t.Context(), "web"); err != nil {
			t.Fatal(err)
		}
		wantState(t, s, "web", Running)
		v, _ := s.Get("web")
		if log := w.logs[v.ID].String(); w.boots != 2 || !strings.Contains(log, "[system] the saved memory cannot be used, the program starts anew: ") {
			t.Errorf("%d boots, log:\n%s", w.boots, log)
		}
		if _, err := x.Recv(); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("a command that was lost ends with %v", err)
		}
		if err := x.Close(); err != nil {
			t.Error(err)
		}
		closeSet(t, s, StopAll)
	})
}

// TestSleeperOfAnotherVersion: what woke speaks no language of this daemon's. Its memory is
// of no use either.
func TestSleeperOfAnotherVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := sleeper(t)
		if err := s.Hibernate(t.Context(), "web"); err != nil {
			t.Fatal(err)
		}
		w.reopenErr = fmt.Errorf("no version in common: %w", vmm.ErrStale)
		if err := s.Resume(t.Context(), "web"); err != nil {
			t.Fatal(err)
		}
		wantState(t, s, "web", Running)
		v, _ := s.Get("web")
		if log := w.logs[v.ID].String(); w.boots != 2 || len(w.machines) != 1 || !strings.Contains(log, "the program starts anew: no version in common") {
			t.Errorf("%d boots, %d machines, log:\n%s", w.boots, len(w.machines), log)
		}
		closeSet(t, s, StopAll)
	})
}

func TestRequestsToASleeper(t *testing.T) {
	for _, c := range []struct {
		name         string
		do           func(ctx context.Context, s *Set) error
		want         State
		hib          bool
		wakes, boots int
	}{
		{"hibernate again", func(ctx context.Context, s *Set) error { return s.Hibernate(ctx, "web") }, Stopped, true, 0, 1},
		{"stop", func(ctx context.Context, s *Set) error { return s.Stop(ctx, "web") }, Stopped, false, 0, 1},
		{"restart", func(ctx context.Context, s *Set) error { return s.Restart(ctx, "web") }, Running, false, 0, 2},
		{"disable", func(ctx context.Context, s *Set) error { return s.Disable(ctx, "web") }, Stopped, true, 0, 1},
		{"disable and start", func(ctx context.Context, s *Set) error {
			return errors.Join(s.Disable(ctx, "web"), s.Start(ctx, "web"))
		}, Running, false, 1, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, s := sleeper(t)
				if err := s.Hibernate(t.Context(), "web"); err != nil {
					t.Fatal(err)
				}
				if err := c.do(t.Context(), s); err != nil {
					t.Fatal(err)
				}
				wantState(t, s, "web", c.want)
				if hib := isHibernated(t, s); hib != c.hib || hib != (len(w.saved) == 1) || w.wakes != c.wakes || w.boots != c.boots {
					t.Errorf("hibernated %v, saved %v, %d wakes, %d boots", hib, w.saved, w.wakes, w.boots)
				}
				if err := s.Delete(t.Context(), "web"); err != nil {
					t.Error(err)
				}
				checkNothingLeft(t, w, s)
				if len(w.saved) != 0 {
					t.Error("saved memory of a deleted instance is left")
				}
				closeSet(t, s, StopAll)
			})
		})
	}
}

// TestDownAndUp: the daemon ends and another comes; the program goes on.
func TestDownAndUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := sleeper(t)
		closeSet(t, s, PutAsleep)
		if m, _ := w.left(); m != 0 {
			t.Errorf("%d machines are left", m)
		}
		s = NewSet(w.world())
		if err := s.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantState(t, s, "web", Stopped)
		if !isHibernated(t, s) {
			t.Error("the memory is forgotten")
		}
		if err := s.Resume(t.Context(), "web"); err != nil {
			t.Fatal(err)
		}
		if w.wakes != 1 || w.boots != 1 {
			t.Errorf("%d wakes, %d boots", w.wakes, w.boots)
		}
		closeSet(t, s, StopAll)
	})
}

// TestCloneFails: where a template is of no use the machine boots, and says so.
func TestCloneFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStubWorld()
		w.runs, w.template, w.restoreErr = time.Hour, true, errors.New("the VMM has moods")
		s := NewSet(w.world())
		v, err := s.Launch(t.Context(), Spec{Handle: "web", Command: []string{"serve"}})
		if err != nil {
			t.Fatal(err)
		}
		if log := w.logs[v.ID].String(); !strings.Contains(log, "[system] the template cannot be used, the machine boots: ") {
			t.Errorf("log:\n%s", log)
		}
		closeSet(t, s, StopAll)
	})
}
