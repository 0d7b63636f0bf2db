package instance

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// checkSharesOver says that nothing is served or left, and that never two servers were
// there for one instance.
func checkSharesOver(t *testing.T, w *stubWorld) {
	t.Helper()
	if open, made := w.shares.left(); open != 0 || made != 0 || w.shares.twice {
		t.Errorf("%d open, %d left, two at a time %v", open, made, w.shares.twice)
	}
}

// TestShareOverALife follows an instance's folders through all that can happen to it.
func TestShareOverALife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := sleeper(t, withShares)
		wantEvents(t, w.shares, "open 0", "mount, again false", "spawn")

		must(t, s.Pause(t.Context(), "web"))
		must(t, s.Resume(t.Context(), "web"))
		wantEvents(t, w.shares)

		must(t, s.Hibernate(t.Context(), "web"))
		must(t, s.Resume(t.Context(), "web"))
		wantEvents(t, w.shares, "close", "open 1", "mount, again true")

		closeSet(t, s, Keep)
		s = NewSet(w.world())
		must(t, s.Recover(t.Context()))
		wantState(t, s, "web", Running)
		wantEvents(t, w.shares, "close", "open 1", "mount, again true")

		must(t, s.Pause(t.Context(), "web"))
		closeSet(t, s, Keep)
		s = NewSet(w.world())
		must(t, s.Recover(t.Context()))
		wantEvents(t, w.shares, "close", "open 1") // a guest that is paused hears nothing
		must(t, s.Resume(t.Context(), "web"))
		wantEvents(t, w.shares, "mount, again true")

		must(t, s.Hibernate(t.Context(), "web"))
		closeSet(t, s, Keep)
		s = NewSet(w.world())
		must(t, s.Recover(t.Context()))
		must(t, s.Resume(t.Context(), "web"))
		wantEvents(t, w.shares, "close", "open 1", "mount, again true")

		must(t, s.Restart(t.Context(), "web"))
		wantEvents(t, w.shares, "close", "open 0", "mount, again false", "spawn")
		must(t, s.Delete(t.Context(), "web"))
		wantEvents(t, w.shares, "close")
		closeSet(t, s, StopAll)
		checkSharesOver(t, w)
	})
}

func TestShareOfARun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStubWorld()
		withShares(w)
		s := NewSet(w.world())
		r, err := s.Run(t.Context(), Spec{Command: []string{"make"}})
		if err != nil {
			t.Fatal(err)
		}
		wantEvents(t, w.shares, "open 0", "mount, again false", "spawn")
		must(t, r.Close())
		checkSharesOver(t, w)
		closeSet(t, s, StopAll)
	})
}

// TestFolderIsMissing: a start says so at once and leaves nothing; a folder that goes
// later ends no start twice, costs no saved memory and no machine that runs.
func TestFolderIsMissing(t *testing.T) {
	missing := fault.New(fault.NotFound, "there is no folder /x").WithHint("make it first")
	synctest.Test(t, func(t *testing.T) {
		w, s := sleeper(t, withShares)
		w.shares.checkErr = missing
		for _, err := range []error{
			func() error { _, err := s.Run(t.Context(), Spec{Command: []string{"x"}}); return err }(),
			func() error { _, err := s.Create(t.Context(), Spec{Command: []string{"x"}}); return err }(),
		} {
			if !errors.Is(err, missing) {
				t.Errorf("%v", err)
			}
		}
		if s.Len() != 1 || w.boots != 1 {
			t.Errorf("%d instances, %d boots", s.Len(), w.boots)
		}

		must(t, s.Hibernate(t.Context(), "web"))
		w.shares.openErr = missing
		if err := s.Resume(t.Context(), "web"); !errors.Is(err, missing) || fault.HintOf(err) == "" || fault.KindOf(err) != fault.Unavailable {
			t.Errorf("a wake without the folder: %v", err)
		}
		if !isHibernated(t, s) || len(w.saved) != 1 {
			t.Error("the memory was lost with the folder")
		}
		w.shares.openErr = nil
		must(t, s.Resume(t.Context(), "web"))

		closeSet(t, s, Keep)
		w.shares.openErr = missing
		s = NewSet(w.world())
		must(t, s.Recover(t.Context()))
		wantState(t, s, "web", Running)
		v, _ := s.Get("web")
		if log := w.logs[v.ID].String(); !strings.Contains(log, "there is no folder /x; what uses it waits") {
			t.Errorf("log:\n%s", log)
		}

		w.template = true
		if err := s.Restart(t.Context(), "web"); !errors.Is(err, missing) {
			t.Errorf("a start without the folder: %v", err)
		}
		if w.boots != 2 {
			t.Errorf("%d boots: a folder that is missing is not the template's fault", w.boots)
		}
		closeSet(t, s, StopAll)
	})
}

func TestMountFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStubWorld()
		withShares(w)
		w.shares.mountErr = fault.New(fault.Unavailable, "mount the workspace: connection refused").By(fault.Guest)
		s := NewSet(w.world())
		if _, err := s.Run(t.Context(), Spec{Handle: "job", Command: []string{"x"}}); !errors.Is(err, w.shares.mountErr) {
			t.Errorf("%v", err)
		}
		checkSharesOver(t, w)
		closeSet(t, s, StopAll)
	})
}

// TestSharersAreTold: whoever starts beside another on the same folder reads it in the
// log.
func TestSharersAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := sleeper(t, withShares)
		w.runs = 24 * time.Hour
		for i, c := range []struct {
			f    Folders
			told string
		}{
			{Folders{Workspace: "code"}, ""},
			{Folders{Workspace: "other", Mounts: []Mount{{Source: "code", Target: "/code"}}}, "code is in use by a too: "},
			{Folders{}, ""},
			{Folders{Workspace: "/srv/x", ReadOnly: true}, ""},
			{Folders{Workspace: "/srv/x/", ReadOnly: true}, ""},
			{Folders{Workspace: "/srv/x/y"}, "/srv/x/y is in use by d too: "},
			{Folders{Workspace: "/srv/xy"}, ""},
		} {
			v, err := s.Launch(t.Context(), Spec{Handle: string(rune('a' + i)), Command: []string{"serve"}, Folders: c.f})
			if err != nil {
				t.Fatal(err)
			}
			log := w.logs[v.ID].String()
			if c.told == "" && strings.Contains(log, "in use") || !strings.Contains(log, c.told) {
				t.Errorf("%+v: %q, want %q", c.f, log, c.told)
			}
		}
		closeSet(t, s, StopAll)
	})
}

// TestWhatOutlivesARun: a guest whose folder stays writes back what it has before it is
// ended; one whose folder goes with it need not.
func TestWhatOutlivesARun(t *testing.T) {
	for _, c := range []struct {
		f    Folders
		want int
	}{
		{Folders{}, 0}, {Folders{Workspace: "code"}, 1}, {Folders{Mounts: []Mount{{Source: "/srv", Target: "/srv"}}}, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newStubWorld()
			withShares(w)
			s := NewSet(w.world())
			r, err := s.Run(t.Context(), Spec{Command: []string{"make"}, Folders: c.f})
			if err != nil {
				t.Fatal(err)
			}
			must(t, r.Close())
			if w.freezes != c.want {
				t.Errorf("%+v: %d freezes, want %d", c.f, w.freezes, c.want)
			}
			checkSharesOver(t, w)
			closeSet(t, s, StopAll)
		})
	}
}
