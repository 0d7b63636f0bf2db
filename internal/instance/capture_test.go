package instance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// checkReleased fails where a capture is still held.
func checkReleased(t *testing.T, w *stubWorld) {
	t.Helper()
	if live, _ := w.archive.left(); live != 0 {
		t.Errorf("%d captures were not released", live)
	}
}

func names(n int) []string { return make([]string, n) }

// TestForkTakesOnce: however many copies there are, the source stands still once, is again
// what it was, and each copy is told who it is before anything runs in it.
func TestForkTakesOnce(t *testing.T) {
	for _, moves := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w, s := sleeper(t, func(w *stubWorld) { w.archive.moves = moves })
			source, _ := s.Get("web")
			w.logs[source.ID].offset = 42
			forks, cold, err := s.Fork(t.Context(), "web", ForkSpec{Names: names(8)})
			if err != nil || cold || len(forks) != 8 {
				t.Fatalf("%d forks, cold %v, %v", len(forks), cold, err)
			}
			if _, takes := w.archive.left(); takes != 1 {
				t.Errorf("it was taken %d times", takes)
			}
			wantState(t, s, "web", Running)
			seen := map[string]bool{}
			for i, v := range forks {
				wantState(t, s, string(v.ID), Running)
				h := w.greeted[1+i]
				switch {
				case w.opened[1+i] != source.Magic:
					t.Error("it was not opened with the source's magic")
				case h.Rekey == nil || *h.Rekey == source.Magic:
					t.Error("its magic is the source's")
				case h.Identity == nil || !h.Identity.Clone || h.Identity.MachineID == "" || h.Identity.BootID == "":
					t.Errorf("its identity is %+v", h.Identity)
				case !slices.Equal(h.Owned, []guestproto.Owned{{Exec: guestproto.ProgramID, Offset: 42}}):
					t.Errorf("it owns %v", h.Owned)
				}
				seen[h.Identity.MachineID+h.Identity.BootID+h.Rekey.String()] = true
				if o := w.logs[v.ID].offset; o != 42 {
					t.Errorf("its output goes on at %d", o)
				}
				if _, stored := w.records[v.ID]; !stored {
					t.Error("it is not remembered")
				}
			}
			if len(seen) != 8 {
				t.Errorf("%d identities", len(seen))
			}
			if w.boots != 1 { // the source's
				t.Errorf("%d boots", w.boots)
			}
			checkReleased(t, w)
			closeSet(t, s, StopAll)
		})
	}
}

// TestCaptureKeepsTheState: to be captured changes no state that others see, and what comes
// meanwhile waits.
func TestCaptureKeepsTheState(t *testing.T) {
	for _, moves := range []bool{false, true} {
		for name, c := range map[string]struct {
			before func(ctx context.Context, s *Set) error
			want   State
			cold   bool
		}{
			"running":    {func(context.Context, *Set) error { return nil }, Running, false},
			"paused":     {func(ctx context.Context, s *Set) error { return s.Pause(ctx, "web") }, Paused, false},
			"hibernated": {func(ctx context.Context, s *Set) error { return s.Hibernate(ctx, "web") }, Stopped, false},
			"stopped":    {func(ctx context.Context, s *Set) error { return s.Stop(ctx, "web") }, Stopped, true},
			"disabled":   {func(ctx context.Context, s *Set) error { return s.Disable(ctx, "web") }, Stopped, true},
		} {
			t.Run(fmt.Sprintf("%s, moves %v", name, moves), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w, s := sleeper(t, func(w *stubWorld) { w.archive.moves, w.archive.taking = moves, time.Second })
					if err := c.before(t.Context(), s); err != nil {
						t.Fatal(err)
					}
					before, _ := s.Get("web")
					changes, stop := s.Watch()
					defer stop()
					snap, err := s.Snapshot(t.Context(), "web", "snap")
					if err != nil || snap.Cold != c.cold || snap.Origin.ID != before.ID {
						t.Fatalf("snapshot %+v, %v", snap, err)
					}
					wantState(t, s, "web", c.want)
					after, _ := s.Get("web")
					if !after.Stopped.Equal(before.Stopped) || after.Hibernated != before.Hibernated || after.Enabled != before.Enabled {
						t.Errorf("it was %+v, and is %+v", before, after)
					}
					select {
					case change := <-changes:
						t.Errorf("told: %+v", change)
					default:
					}
					// It can be saved, woken and stopped as before.
					if c.want != Stopped {
						if err := errors.Join(s.Hibernate(t.Context(), "web"), s.Resume(t.Context(), "web")); err != nil {
							t.Error(err)
						}
						wantState(t, s, "web", Running)
					}
					checkReleased(t, w)
					closeSet(t, s, StopAll)
				})
			})
		}
	}
}

// TestCaptureFails: the source goes on, and nothing of the forks is left.
func TestCaptureFails(t *testing.T) {
	for name, harm := range map[string]func(*stubWorld){
		"at once":            func(w *stubWorld) { w.archive.captureErr = errOp },
		"at the pause":       func(w *stubWorld) { w.archive.takeErr = errOp },
		"afterwards":         func(w *stubWorld) { w.archive.readyErr = errOp },
		"for the disks":      func(w *stubWorld) { w.archive.layErr = errOp },
		"for one of several": func(w *stubWorld) { w.archive.startErr["f-2"] = errOp },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, s := sleeper(t)
				harm(w)
				if _, _, err := s.Fork(t.Context(), "web", ForkSpec{Names: []string{"f-1", "f-2", "f-3"}}); !errors.Is(err, errOp) {
					t.Errorf("err = %v", err)
				}
				wantState(t, s, "web", Running)
				if m, g := w.left(); m != 1 || g != 1 || s.Len() != 1 || len(w.records) != 1 {
					t.Errorf("left: %d machines, %d folders, %d instances, %d records", m, g, s.Len(), len(w.records))
				}
				if open, forgotten := w.doors.left(); open != 0 || forgotten != 0 {
					t.Errorf("%d ports are open, %d were forgotten", open, forgotten)
				}
				checkReleased(t, w)
				closeSet(t, s, StopAll)
			})
		})
	}
}

// TestSourceIsLost: one that was moved and cannot go on has ended, and says why.
func TestSourceIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := sleeper(t, func(w *stubWorld) { w.archive.moves = true })
		w.restoreErr = fault.New(fault.Exhausted, "no memory")
		if _, err := s.Snapshot(t.Context(), "web", ""); fault.KindOf(err) != fault.Exhausted {
			t.Errorf("err = %v", err)
		}
		wantState(t, s, "web", Stopped)
		if v, _ := s.Get("web"); !strings.Contains(v.Why, "could not go on") {
			t.Errorf("it is stopped because %q", v.Why)
		}
		checkReleased(t, w)
		w.restoreErr = nil
		if err := s.Resume(t.Context(), "web"); err != nil {
			t.Error(err)
		}
		closeSet(t, s, StopAll)
	})
}

func TestForkNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := sleeper(t)
		if _, _, err := s.Fork(t.Context(), "web", ForkSpec{Names: []string{"a", "web"}}); fault.KindOf(err) != fault.Conflict {
			t.Errorf("a name that is taken: %v", err)
		}
		if _, takes := w.archive.left(); takes != 0 || s.Len() != 1 {
			t.Errorf("it was taken %d times for nothing; %d instances", takes, s.Len())
		}
		for _, f := range []ForkSpec{{}, {Names: names(MaxForks + 1)}, {Names: []string{"no/name"}}} {
			if _, _, err := s.Fork(t.Context(), "web", f); fault.KindOf(err) != fault.Invalid {
				t.Errorf("%d forks: %v", len(f.Names), err)
			}
		}
		if _, _, err := s.Fork(t.Context(), "nobody", ForkSpec{Names: names(1)}); fault.KindOf(err) != fault.NotFound {
			t.Errorf("of nobody: %v", err)
		}
		closeSet(t, s, StopAll)
	})
}

// TestForkPorts: the ports of the source are open on other numbers.
func TestForkPorts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s := sleeper(t)
		for _, e := range []Expose{{Guest: 80}, {Guest: 443, Protocol: TCP}} {
			if _, err := s.Expose(t.Context(), "web", e); err != nil {
				t.Fatal(err)
			}
		}
		forks, _, err := s.Fork(t.Context(), "web", ForkSpec{Names: names(2), Expose: []Expose{{Guest: 8080}}})
		if err != nil {
			t.Fatal(err)
		}
		source, _ := s.Get("web")
		seen := map[uint16]bool{}
		for _, v := range append(forks, source) {
			for _, e := range v.Spec.Expose {
				if e.Public == 0 || seen[e.Public] {
					t.Errorf("port %d of %s is open at %d", e.Guest, v.Spec.Handle, e.Public)
				}
				seen[e.Public] = true
			}
		}
		if len(seen) != 8 {
			t.Errorf("%d ports are open", len(seen))
		}
		closeSet(t, s, StopAll)
	})
}

// TestRunIsNotForked: it would outlive its client.
func TestRunIsNotForked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStubWorld()
		s := NewSet(w.world())
		r, err := s.Run(t.Context(), Spec{Handle: "one", Command: []string{"true"}})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.Fork(t.Context(), "one", ForkSpec{Names: names(1)}); fault.KindOf(err) != fault.Conflict {
			t.Errorf("err = %v", err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		closeSet(t, s, StopAll)
	})
}

// TestExecGoesOnInTheSource: a command under way notices nothing of a fork, and is not in
// the copy.
func TestExecGoesOnInTheSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := sleeper(t, func(w *stubWorld) { w.execs, w.archive.moves = time.Minute, true })
		x, err := s.Exec(t.Context(), "web", ExecSpec{Command: []string{"sleep"}})
		if err != nil {
			t.Fatal(err)
		}
		forks, _, err := s.Fork(t.Context(), "web", ForkSpec{Names: []string{"copy"}})
		if err != nil {
			t.Fatal(err)
		}
		if len(forks[0].Holds) != 0 {
			t.Errorf("the copy is held by %v", forks[0].Holds)
		}
		if _, err := x.Recv(); err != nil {
			t.Errorf("the command ends with %v", err)
		}
		if err := x.Close(); err != nil {
			t.Error(err)
		}
		checkReleased(t, w)
		closeSet(t, s, StopAll)
	})
}

// TestRestore: an instance goes back to a snapshot of itself, from whatever it is.
func TestRestore(t *testing.T) {
	for name, before := range map[string]func(ctx context.Context, s *Set) error{
		"running":    func(context.Context, *Set) error { return nil },
		"paused":     func(ctx context.Context, s *Set) error { return s.Pause(ctx, "web") },
		"hibernated": func(ctx context.Context, s *Set) error { return s.Hibernate(ctx, "web") },
		"stopped":    func(ctx context.Context, s *Set) error { return s.Stop(ctx, "web") },
		"disabled":   func(ctx context.Context, s *Set) error { return s.Disable(ctx, "web") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, s := sleeper(t)
				first, _ := s.Get("web")
				w.logs[first.ID].offset = 7
				if _, err := s.Snapshot(t.Context(), "web", "then"); err != nil {
					t.Fatal(err)
				}
				w.logs[first.ID].offset = 70
				if err := before(t.Context(), s); err != nil {
					t.Fatal(err)
				}
				if err := s.Restore(t.Context(), "web", "then"); err != nil {
					t.Fatal(err)
				}
				wantState(t, s, "web", Running)
				v, _ := s.Get("web")
				if v.ID != first.ID || !v.Enabled || len(w.saved) != 0 || w.boots != 1 {
					t.Errorf("%+v, saved %v, %d boots", v, w.saved, w.boots)
				}
				if h := w.greeted[len(w.greeted)-1]; h.Owned[0].Offset != 7 || w.logs[v.ID].offset != 7 {
					t.Errorf("its output goes on at %v", h.Owned)
				}
				if m, _ := w.left(); m != 1 {
					t.Errorf("%d machines", m)
				}
				if log := w.logs[v.ID].String(); !strings.Contains(log, "it goes back to the snapshot then") {
					t.Errorf("log:\n%s", log)
				}
				checkReleased(t, w)
				closeSet(t, s, StopAll)
			})
		})
	}
}

func TestRestoreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := sleeper(t)
		if err := s.Restore(t.Context(), "web", "never"); fault.KindOf(err) != fault.NotFound {
			t.Errorf("a snapshot that is not there: %v", err)
		}
		if _, err := s.Snapshot(t.Context(), "web", "then"); err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.Fork(t.Context(), "web", ForkSpec{Names: []string{"other"}}); err != nil {
			t.Fatal(err)
		}
		if err := s.Restore(t.Context(), "other", "then"); fault.KindOf(err) != fault.Conflict {
			t.Errorf("another's snapshot: %v", err)
		}
		wantState(t, s, "other", Running)
		if err := s.Delete(t.Context(), "web"); err != nil {
			t.Fatal(err)
		}
		if err := s.Restore(t.Context(), "web", "then"); fault.KindOf(err) != fault.NotFound {
			t.Errorf("of an instance that is gone: %v", err)
		}
		if err := s.DeleteSnapshot(t.Context(), "then"); err != nil {
			t.Error(err)
		}
		checkReleased(t, w)
		closeSet(t, s, StopAll)
	})
}

// TestCreateFrom: another instance goes on from a snapshot whose source is gone.
func TestCreateFrom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := sleeper(t)
		if _, err := s.Snapshot(t.Context(), "web", "then"); err != nil {
			t.Fatal(err)
		}
		if err := s.Delete(t.Context(), "web"); err != nil {
			t.Fatal(err)
		}
		for _, f := range []FromSnapshot{{Memory: 2 * size.GiB}, {VCPUs: 7}, {Disk: 2 * MinDisk}} {
			if _, err := s.CreateFrom(t.Context(), "then", f, true); fault.KindOf(err) != fault.Invalid || s.Len() != 0 {
				t.Errorf("another shape: %v; %d instances", err, s.Len())
			}
		}
		v, err := s.CreateFrom(t.Context(), "then", FromSnapshot{Handle: "web", Memory: DefaultMemory, VCPUs: 1}, true)
		if err != nil {
			t.Fatal(err)
		}
		wantState(t, s, "web", Running)
		if h := w.greeted[len(w.greeted)-1]; !h.Identity.Clone || h.Identity.Instance != string(v.ID) {
			t.Errorf("it was greeted with %+v", h.Identity)
		}
		later, err := s.CreateFrom(t.Context(), "then", FromSnapshot{Handle: "later"}, false)
		if err != nil || later.State != Booting {
			t.Errorf("%v, %v", later.State, err)
		}
		time.Sleep(5 * time.Second)
		wantState(t, s, "later", Running)
		if w.boots != 1 {
			t.Errorf("%d boots", w.boots)
		}
		w.archive.uselessErr = fmt.Errorf("load: %w", vmm.ErrStale)
		v, err = s.CreateFrom(t.Context(), "then", FromSnapshot{Handle: "cold"}, true)
		if log := w.logs[v.ID].String(); err != nil || w.boots != 2 || !strings.Contains(log, "the saved memory cannot be used, the program starts anew") {
			t.Errorf("%v, %d boots, log:\n%s", err, w.boots, log)
		}
		checkReleased(t, w)
		closeSet(t, s, StopAll)
	})
}

// TestEverythingAtOnce: forks, snapshots, restores, stops, deletes and connections in any
// order leave nothing behind and answer everybody.
func TestEverythingAtOnce(t *testing.T) {
	for round := range 30 {
		synctest.Test(t, func(t *testing.T) {
			w, s := sleeper(t, func(w *stubWorld) { w.archive.moves, w.archive.taking = round%2 == 0, 200*time.Millisecond })
			if _, err := s.Snapshot(t.Context(), "web", "then"); err != nil {
				t.Fatal(err)
			}
			ctx := t.Context()
			var wg sync.WaitGroup
			for i, do := range []func(){
				func() { _, _, _ = s.Fork(ctx, "web", ForkSpec{Names: names(2)}) },
				func() { _, _ = s.Snapshot(ctx, "web", "") },
				func() { _ = s.Restore(ctx, "web", "then") },
				func() { _ = s.Stop(ctx, "web") },
				func() { _ = s.Pause(ctx, "web") },
				func() { _ = s.Hibernate(ctx, "web") },
				func() { _ = s.Resume(ctx, "web") },
				func() { _, _ = s.Snapshot(ctx, "web", "bad") },
				func() { _, _, _ = s.Fork(ctx, "web", ForkSpec{Names: names(1)}) },
				func() {
					if round%3 == 0 {
						_ = s.Delete(ctx, "web")
					}
				},
			} {
				wg.Go(func() {
					time.Sleep(time.Duration((i*round*37)%700) * time.Millisecond)
					do()
				})
			}
			wg.Wait()
			checkReleased(t, w)
			for _, v := range s.List() {
				if err := s.Delete(ctx, string(v.ID)); err != nil {
					t.Error(err)
				}
			}
			checkNothingLeft(t, w, s)
			if len(w.records) != 0 {
				t.Errorf("%d records are left", len(w.records))
			}
			closeSet(t, s, StopAll)
		})
	}
}

// TestForkWorkspace: one that goes with the source is copied at the pause, once; one with a name
// is shared.
func TestForkWorkspace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStubWorld()
		w.runs, w.shares = 24*time.Hour, newStubShares()
		s := NewSet(w.world())
		for _, spec := range []Spec{
			{Handle: "web", Command: []string{"serve"}},
			{Handle: "db", Command: []string{"serve"}, Folders: Folders{Workspace: "data"}},
		} {
			if _, err := s.Launch(t.Context(), spec); err != nil {
				t.Fatal(err)
			}
		}
		w.shares.happened()
		source, _ := s.Get("web")
		forks, _, err := s.Fork(t.Context(), "web", ForkSpec{Names: names(3)})
		if err != nil {
			t.Fatal(err)
		}
		var copies []string
		for _, e := range w.shares.happened() {
			if strings.HasPrefix(e, "copy ") {
				copies = append(copies, e)
			}
		}
		first := forks[0].ID
		want := []string{fmt.Sprintf("copy %s to %s", source.ID, first), fmt.Sprintf("copy %s to %s", first, forks[1].ID), fmt.Sprintf("copy %s to %s", first, forks[2].ID)}
		if !slices.Equal(copies, want) {
			t.Errorf("copies %q, want %q", copies, want)
		}
		if _, _, err := s.Fork(t.Context(), "db", ForkSpec{Names: names(1)}); err != nil {
			t.Fatal(err)
		}
		for _, e := range w.shares.happened() {
			if strings.HasPrefix(e, "copy ") {
				t.Errorf("a workspace with a name: %s", e)
			}
		}
		if w.shares.twice {
			t.Error("a workspace was open twice")
		}
		closeSet(t, s, StopAll)
	})
}

// TestForksDocument: the tests that the document names are there.
func TestForksDocument(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "SNAPSHOTS.md"))
	if err != nil {
		t.Fatal(err)
	}
	var code []byte
	for _, dir := range []string{".", "../machine", "../../test/e2e"} {
		files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			code = append(code, b...)
		}
	}
	named := regexp.MustCompile("`(Test\\w+)`").FindAllSubmatch(doc, -1)
	for _, name := range named {
		if !bytes.Contains(code, []byte("func "+string(name[1])+"(")) {
			t.Errorf("there is no %s", name[1])
		}
	}
	if len(named) < 10 {
		t.Errorf("the document names %d tests", len(named))
	}
}
