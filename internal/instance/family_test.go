package instance

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
)

// parent makes a world with an instance, web, that may have so many children.
func parent(t *testing.T, children int) (*stubWorld, *Set, ID) {
	t.Helper()
	w := newStubWorld()
	w.runs = 24 * time.Hour
	s := NewSet(w.world())
	v, err := s.Launch(t.Context(), Spec{
		Handle: "web", Command: []string{"serve"},
		Capabilities: &api.Capabilities{Spawn: true, SpawnDepth: 3, MaxChildren: children},
	})
	if err != nil {
		t.Fatal(err)
	}
	return w, s, v.ID
}

func childOf(parent ID, children int) Spec {
	return Spec{Parent: parent, Command: []string{"work"}, Capabilities: &api.Capabilities{Spawn: true, SpawnDepth: 2, MaxChildren: children}}
}

func spawn(t *testing.T, s *Set, parent ID) View {
	t.Helper()
	v, err := s.Launch(t.Context(), childOf(parent, 3))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Many at once do not exceed what one at a time may have.
func TestChildrenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s, web := parent(t, 3)
		var mu sync.Mutex
		made := 0
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				_, err := s.Create(t.Context(), childOf(web, 0))
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					made++
				case fault.KindOf(err) != fault.Denied:
					t.Errorf("%v", err)
				}
			})
		}
		wg.Wait()
		if n := len(s.Children(web)); made != 3 || n != 3 {
			t.Errorf("%d were made, %d are there", made, n)
		}
		if err := s.Delete(t.Context(), "web"); err != nil {
			t.Fatal(err)
		}
		checkNothingLeft(t, w, s)
	})
}

// A child that has ended makes room; one that starts again needs it.
func TestLiveChildren(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s, web := parent(t, 1)
		first := spawn(t, s, web)
		if _, err := s.Create(t.Context(), childOf(web, 0)); fault.KindOf(err) != fault.Denied || fault.HintOf(err) == "" {
			t.Errorf("a second child: %v", err)
		}
		if err := s.Hibernate(t.Context(), string(first.ID)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Create(t.Context(), childOf(web, 0)); fault.KindOf(err) != fault.Denied {
			t.Errorf("a second child beside one that is saved: %v", err)
		}
		if err := s.Stop(t.Context(), string(first.ID)); err != nil {
			t.Fatal(err)
		}
		second := spawn(t, s, web)
		for _, start := range []func(context.Context, string) error{s.Start, s.Resume, s.Restart} {
			if err := start(t.Context(), string(first.ID)); fault.KindOf(err) != fault.Denied {
				t.Errorf("a start of the first: %v", err)
			}
		}
		if err := s.Delete(t.Context(), string(second.ID)); err != nil {
			t.Fatal(err)
		}
		if err := s.Start(t.Context(), string(first.ID)); err != nil {
			t.Errorf("a start of the first when the second is gone: %v", err)
		}
		if _, err := s.Create(t.Context(), childOf(web, 0)); fault.KindOf(err) != fault.Denied {
			t.Errorf("another: %v", err)
		}
		if err := s.Delete(t.Context(), "web"); err != nil {
			t.Fatal(err)
		}
		checkNothingLeft(t, w, s)
	})
}

func TestStoppedChildrenAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s, web := parent(t, 1)
		var err error
		n := 0
		for ; n < 2*maxAsleep; n++ {
			var v View
			if v, err = s.Launch(t.Context(), childOf(web, 0)); err != nil {
				break
			}
			if err := s.Stop(t.Context(), string(v.ID)); err != nil {
				t.Fatal(err)
			}
		}
		if n != maxAsleep || fault.KindOf(err) != fault.Denied {
			t.Errorf("%d children, then %v", n, err)
		}
		if err := s.Delete(t.Context(), "web"); err != nil {
			t.Fatal(err)
		}
		checkNothingLeft(t, w, s)
	})
}

// dynasty makes three generations below web, the last one asleep on disk.
func dynasty(t *testing.T, s *Set, web ID) (all []ID) {
	t.Helper()
	for of := web; len(all) < 3; of = all[len(all)-1] {
		all = append(all, spawn(t, s, of).ID)
	}
	if err := s.Hibernate(t.Context(), string(all[2])); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestFateOfDescendants(t *testing.T) {
	for _, c := range []struct {
		name    string
		do      func(s *Set, ctx context.Context, ref string) error
		want    State // of child and grandchild
		enabled bool
	}{
		{"stop", (*Set).Stop, Running, true},
		{"hibernate", (*Set).Hibernate, Running, true},
		{"restart", (*Set).Restart, Running, true},
		{"crash", func(s *Set, ctx context.Context, ref string) error {
			a, err := s.find(ref)
			if err != nil {
				return err
			}
			return a.live.current().machine.Kill(ctx)
		}, Running, true},
		{"disable", (*Set).Disable, Stopped, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, s, web := parent(t, 3)
				all := dynasty(t, s, web)
				try(t, c.do(s, t.Context(), "web"))
				for i, id := range all {
					want := c.want
					if i == 2 {
						want = Stopped
					}
					wantState(t, s, string(id), want)
					if v, err := s.Get(string(id)); err != nil || v.Enabled != c.enabled || v.Hibernated != (i == 2) {
						t.Errorf("generation %d: enabled %v, hibernated %v, %v", i+1, v.Enabled, v.Hibernated, err)
					}
				}
				if !c.enabled {
					if _, err := s.Create(t.Context(), childOf(web, 0)); fault.KindOf(err) != fault.Conflict {
						t.Errorf("a child of one that is disabled: %v", err)
					}
					try(t, s.Start(t.Context(), "web"))
					spawn(t, s, web)
				}
				try(t, s.Delete(t.Context(), "web"))
				checkNothingLeft(t, w, s)
				if len(w.records) != 0 {
					t.Errorf("%d are remembered", len(w.records))
				}
			})
		})
	}
}

func try(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Whoever spawns while its instance is deleted is refused, or its child goes too.
func TestSpawnWhileDeleted(t *testing.T) {
	for wait := range 30 {
		synctest.Test(t, func(t *testing.T) {
			w, s, web := parent(t, 10)
			var wg sync.WaitGroup
			wg.Go(func() {
				for range 10 {
					_, _ = s.Create(t.Context(), childOf(web, 0)) // it may be too late
					time.Sleep(7 * time.Millisecond)
				}
			})
			time.Sleep(time.Duration(wait) * 5 * time.Millisecond)
			try(t, s.Delete(t.Context(), "web"))
			wg.Wait()
			checkNothingLeft(t, w, s)
		})
	}
}

// Children whose parent was being deleted when its daemon died go at the next start; those
// of others count as before.
func TestFamiliesAfterRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s, web := parent(t, 2)
		child := spawn(t, s, web)
		orphan := spawn(t, s, web)
		closeSet(t, s, Keep)
		r := w.records[orphan.ID]
		r.Spec.Parent = "inst-gone"
		w.records[orphan.ID] = r

		s = NewSet(w.world())
		try(t, s.Recover(t.Context()))
		wantState(t, s, string(child.ID), Running)
		if _, err := s.Get(string(orphan.ID)); fault.KindOf(err) != fault.NotFound {
			t.Errorf("the orphan: %v", err)
		}
		spawn(t, s, web)
		if _, err := s.Create(t.Context(), childOf(web, 0)); fault.KindOf(err) != fault.Denied {
			t.Errorf("a third child: %v", err)
		}
		try(t, s.Delete(t.Context(), "web"))
		checkNothingLeft(t, w, s)
	})
}

func TestChildIsOnlyOfItsParent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s, web := parent(t, 2)
		child := spawn(t, s, web)
		grandchild := spawn(t, s, child.ID)
		if _, err := s.Child(web, string(child.ID)); err != nil {
			t.Error(err)
		}
		for _, ref := range []string{"web", string(web), string(grandchild.ID), "none", ""} {
			if _, err := s.Child(web, ref); fault.KindOf(err) != fault.NotFound {
				t.Errorf("%q: %v", ref, err)
			}
		}
		if _, err := s.Create(t.Context(), childOf("inst-forged", 0)); fault.KindOf(err) != fault.NotFound {
			t.Errorf("a forged parent: %v", err)
		}
		try(t, s.Delete(t.Context(), "web"))
		checkNothingLeft(t, w, s)
	})
}
