package instance

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// TestLaunchRunsOnce has a program that ends at once: a Create that is followed by a
// Start, as Launch is not, runs it twice when it is quicker than the Start.
func TestLaunchRunsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStubWorld()
		w.start, w.link, w.runs, w.status = 0, 0, 0, 0
		s := NewSet(w.world())
		v, err := s.Launch(t.Context(), Spec{Handle: "job", Command: []string{"true"}})
		if err != nil || v.Spec.Handle != "job" {
			t.Errorf("%+v, %v", v, err)
		}
		time.Sleep(time.Minute)
		wantState(t, s, "job", Stopped)
		if w.boots != 1 {
			t.Errorf("%d boots, want 1", w.boots)
		}
		if v, _ := s.Get("job"); len(v.Holds) != 0 || !v.Enabled {
			t.Errorf("%+v: held or disabled", v)
		}
		if err := s.Close(t.Context(), StopAll); err != nil {
			t.Error(err)
		}
	})
}

func TestLaunchFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStubWorld()
		w.spawnErr = fault.New(fault.NotFound, "no-such: not found").By(fault.Program).WithExit(127)
		s := NewSet(w.world())
		v, err := s.Launch(t.Context(), Spec{Handle: "job", Command: []string{"no-such"}})
		if fault.ExitOf(err) != 127 || v.Spec.Handle != "job" || w.boots != 1 {
			t.Errorf("%+v, %v, %d boots", v, err, w.boots)
		}
		wantState(t, s, "job", Stopped)
		if v, _ := s.Get("job"); v.Why != "no-such: not found" || !v.Enabled {
			t.Errorf("why = %q, enabled = %v", v.Why, v.Enabled)
		}
		if v, err := s.Launch(t.Context(), Spec{Handle: "job", Command: []string{"x"}}); v.ID != "" || fault.KindOf(err) != fault.Conflict {
			t.Errorf("a name that is taken: %+v, %v", v, err)
		}
		if err := s.Close(t.Context(), StopAll); err != nil {
			t.Error(err)
		}
	})
}

// TestLaunchGivenUp ends the wait, not the instance.
func TestLaunchGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStubWorld()
		w.runs = time.Hour
		s := NewSet(w.world())
		gone := errors.New("gone")
		ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Millisecond, gone)
		defer cancel()
		if v, err := s.Launch(ctx, Spec{Handle: "job", Command: []string{"serve"}}); !errors.Is(err, gone) || v.ID == "" {
			t.Errorf("%+v, %v", v, err)
		}
		time.Sleep(5 * time.Second)
		wantState(t, s, "job", Running)
		if v, _ := s.Get("job"); len(v.Holds) != 0 {
			t.Errorf("held: %+v", v.Holds)
		}
		if err := s.Close(t.Context(), StopAll); err != nil {
			t.Error(err)
		}
	})
}
