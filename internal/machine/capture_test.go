package machine

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// running starts an instance that owns its memory, or is a clone of a template.
func (s *stage) running(t *testing.T, owner bool) (instance.ID, vmm.Machine) {
	t.Helper()
	id := instance.NewID()
	s.linker.block = func(context.Context) { <-s.begun } // a template has begun when it is ready
	plan := s.plan(t, id, owner)
	m, err := s.driver.Start(t.Context(), plan.Recipe, plan.Source) // the stage ends it
	if err != nil {
		t.Fatal(err)
	}
	if plan.Release != nil {
		plan.Release()
	}
	if err := m.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if found := string(<-s.begun); !owner && found != "word" {
		t.Fatalf("the clone of a template found %q", found)
	}
	s.work.Wait() // its files are written
	if err := s.Started(id); err != nil {
		t.Fatal(err)
	}
	return id, m
}

// capture takes an instance whose machine runs, and returns the machine that it has then.
func (s *stage) capture(t *testing.T, id instance.ID, m vmm.Machine) (instance.Capture, vmm.Machine) {
	t.Helper()
	c, err := s.Capture(t.Context(), id, spec(), true)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	moved, err := c.Take(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	if moved {
		if err := m.Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
		m = s.start(t, c.Onward())
	}
	if err := errors.Join(m.Resume(t.Context()), c.Ready(t.Context())); err != nil {
		t.Fatal(err)
	}
	if moved {
		<-s.begun
	}
	return c, m
}

// fork starts an instance from what was captured, and returns what it finds in memory.
func (s *stage) fork(t *testing.T, c instance.Capture) (instance.ID, vmm.Machine, string) {
	t.Helper()
	id := instance.NewID()
	if err := os.MkdirAll(s.home.Instance(string(id)), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := c.Lay(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	plan, err := c.Start(t.Context(), id, spec(), guestproto.NewMagic())
	if err != nil {
		t.Fatal(err)
	}
	m := s.start(t, plan)
	if err := m.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	return id, m, string(<-s.begun)
}

// names returns what a folder of the home has in it.
func (s *stage) names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// layersOf returns what the disk of an instance lies on.
func (s *stage) layersOf(t *testing.T, id instance.ID) []string {
	t.Helper()
	d, err := loadDisk(s.home.Instance(string(id)))
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, l := range d.Layers {
		ids = append(ids, l.ID)
	}
	return ids
}

func TestFork(t *testing.T) {
	for name, set := range map[string]func(*stage) bool{
		"of a clone":                      func(*stage) bool { return false },
		"of an owner":                     func(*stage) bool { return true },
		"of an owner that is not copied":  func(s *stage) bool { s.copyLimit = 0; return true },
		"of one that was moved, repeated": func(s *stage) bool { s.copyLimit = 0; return true },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			id, m := s.running(t, set(s))
			for round := range 3 {
				c, next := s.capture(t, id, m)
				m = next
				for range 2 {
					clone, cm, found := s.fork(t, c)
					if found != "word" {
						t.Errorf("round %d: the clone found %q", round, found)
					}
					if err := s.Started(clone); err != nil {
						t.Error(err)
					}
					if got, want := s.layersOf(t, clone), s.layersOf(t, id); !slices.Equal(got, want) || len(got) != round+1 {
						t.Errorf("round %d: the clone lies on %v, the source on %v", round, got, want)
					}
					if err := errors.Join(cm.Kill(t.Context()), s.Clear(clone)); err != nil {
						t.Error(err)
					}
				}
				c.Release()
				c.Release()
			}
			if left := s.names(t, s.home.Snapshots()); len(left) != 0 {
				t.Errorf("captures have left %v", left)
			}
			s.work.Wait()
			if n := len(s.names(t, s.home.Layers())); n != 3 {
				t.Errorf("%d layers", n)
			}
			if tops := s.tops(t, id); len(tops) != 1 {
				t.Errorf("the source has %v", tops)
			}
			if err := errors.Join(m.Kill(t.Context()), s.Clear(id)); err != nil {
				t.Fatal(err)
			}
			s.work.Wait()
			if left := s.names(t, s.home.Layers()); len(left) != 0 {
				t.Errorf("layers that nobody has: %v", left)
			}
		})
	}
}

// tops returns the files of an instance that are or were written to.
func (s *stage) tops(t *testing.T, id instance.ID) []string {
	t.Helper()
	return slices.DeleteFunc(s.names(t, s.home.Instance(string(id))), func(n string) bool { return !isDiskFile(n) })
}

// TestDeletionInAnyOrder: a layer goes with the last who lies on it.
func TestDeletionInAnyOrder(t *testing.T) {
	for range 5 {
		s := newStage(t)
		var ids []instance.ID
		var machines []vmm.Machine
		id, m := s.running(t, true)
		ids, machines = append(ids, id), append(machines, m)
		for i := range 6 {
			c, next := s.capture(t, ids[i/2], machines[i/2])
			machines[i/2] = next
			if i%3 == 0 {
				if _, err := c.Keep(t.Context(), "", instance.Origin{ID: ids[i/2], Spec: spec()}); err != nil {
					t.Fatal(err)
				}
			}
			id, m, _ := s.fork(t, c)
			ids, machines = append(ids, id), append(machines, m)
			c.Release()
		}
		left := func() (all []instance.ID) {
			for _, id := range ids {
				if len(s.tops(t, id)) > 0 {
					all = append(all, id)
				}
			}
			return all
		}
		for _, i := range rand.Perm(len(ids)) {
			if err := errors.Join(machines[i].Kill(t.Context()), s.Clear(ids[i])); err != nil {
				t.Fatal(err)
			}
			s.work.Wait()
			for _, id := range left() {
				for _, l := range s.layersOf(t, id) {
					if _, err := os.Stat(s.layerPath(l)); err != nil {
						t.Fatalf("%s lost a layer: %v", id, err)
					}
				}
			}
		}
		snaps, err := s.Snapshots(t.Context())
		if err != nil || len(snaps) != 2 {
			t.Fatalf("%d snapshots, %v", len(snaps), err)
		}
		for _, snap := range snaps {
			_, c, err := s.OpenSnapshot(t.Context(), string(snap.ID))
			if err != nil {
				t.Fatal(err)
			}
			_, cm, found := s.fork(t, c)
			if found != "word" {
				t.Errorf("a snapshot whose source is gone holds %q", found)
			}
			c.Release()
			if err := errors.Join(s.DeleteSnapshot(t.Context(), snap.Name), cm.Kill(t.Context())); err != nil {
				t.Error(err)
			}
		}
		for _, id := range append(left(), must(s.Leftovers())...) {
			if err := s.Clear(id); err != nil {
				t.Fatal(err)
			}
		}
		s.work.Wait()
		if l := s.names(t, s.home.Layers()); len(l) != 0 {
			t.Errorf("layers that nobody has: %v", l)
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestSnapshots(t *testing.T) {
	s := newStage(t)
	id, m := s.running(t, false)
	of := instance.Origin{ID: id, Spec: spec(), Offset: 7, Magic: guestproto.NewMagic()}
	c, m := s.capture(t, id, m)
	snap, err := c.Keep(t.Context(), "first", of)
	if err != nil || snap.Name != "first" || snap.Origin.Offset != 7 || snap.Size <= 0 || snap.Cold {
		t.Fatalf("snapshot %+v, %v", snap, err)
	}
	c.Release()
	c, m = s.capture(t, id, m)
	for _, name := range []string{"first", string(snap.ID)} {
		if _, err := c.Keep(t.Context(), name, of); fault.KindOf(err) != fault.Conflict && fault.KindOf(err) != fault.Invalid {
			t.Errorf("a second %s: %v", name, err)
		}
	}
	for _, name := range []string{"../up", ".x", "a b", "a/b"} {
		if _, err := c.Keep(t.Context(), name, of); fault.KindOf(err) != fault.Invalid {
			t.Errorf("the name %q: %v", name, err)
		}
	}
	c.Release()
	// The next daemon knows it, and the source is gone.
	if err := errors.Join(m.Kill(t.Context()), s.Clear(id)); err != nil {
		t.Fatal(err)
	}
	s.Ground = s.reborn(t)
	if err := s.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	all, err := s.Snapshots(t.Context())
	if err != nil || len(all) != 1 || all[0].ID != snap.ID || all[0].Origin.Magic != of.Magic {
		t.Fatalf("snapshots %+v, %v", all, err)
	}
	_, open, err := s.OpenSnapshot(t.Context(), "first")
	if err != nil {
		t.Fatal(err)
	}
	defer open.Release()
	if _, _, found := s.fork(t, open); found != "word" {
		t.Errorf("it holds %q", found)
	}
	if err := s.DeleteSnapshot(t.Context(), "first"); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteSnapshot(t.Context(), "first"); fault.KindOf(err) != fault.NotFound {
		t.Errorf("deleted twice: %v", err)
	}
	if _, _, err := s.OpenSnapshot(t.Context(), "first"); fault.KindOf(err) != fault.NotFound {
		t.Errorf("opened after that: %v", err)
	}
}

// TestDamagedSnapshot: its memory is of no use, its disk is.
func TestDamagedSnapshot(t *testing.T) {
	s := newStage(t)
	id, m := s.running(t, true)
	c, _ := s.capture(t, id, m)
	snap, err := c.Keep(t.Context(), "s", instance.Origin{ID: id, Spec: spec()})
	if err != nil {
		t.Fatal(err)
	}
	c.Release()
	if err := os.WriteFile(filepath.Join(s.snapshotDir(snap.ID), memoryName), []byte("#"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, open, err := s.OpenSnapshot(t.Context(), "s")
	if err != nil {
		t.Fatal(err)
	}
	defer open.Release()
	clone := instance.NewID()
	if err := errors.Join(os.MkdirAll(s.home.Instance(string(clone)), 0o700), open.Ready(t.Context()), open.Lay(t.Context(), clone)); err != nil {
		t.Fatal(err)
	}
	if _, err := open.Start(t.Context(), clone, spec(), guestproto.NewMagic()); !errors.Is(err, vmm.ErrDamaged) {
		t.Errorf("it starts: %v", err)
	}
	if plan := s.plan(t, clone, false); len(plan.Recipe.Disks[1].Backing) != 1 {
		t.Errorf("its disk is %+v", plan.Recipe.Disks[1])
	}
}

// TestCapturesOverlap: one that is not ready yet does not disturb the next one.
func TestCapturesOverlap(t *testing.T) {
	s := newStage(t)
	id, m := s.running(t, false)
	var all []instance.Capture
	for range 3 {
		c, err := s.Capture(t.Context(), id, spec(), true)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Take(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		if err := m.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	for _, c := range all {
		if err := c.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, _, found := s.fork(t, c); found != "word" {
			t.Errorf("the copy found %q", found)
		}
		c.Release()
	}
	disks := s.host.VM(string(id)).Disks()
	if tops := s.tops(t, id); len(tops) != 1 || tops[0] != filepath.Base(disks[1].Path) {
		t.Errorf("the source has %v and writes to %s", tops, disks[1].Path)
	}
}

// TestForkOfASleeper: the copy has the saved memory, and the sleeper still wakes.
func TestForkOfASleeper(t *testing.T) {
	for _, owner := range []bool{true, false} {
		s := newStage(t)
		id, m := s.running(t, owner)
		if err := errors.Join(m.Pause(t.Context()), s.Save(t.Context(), id, m), m.Kill(t.Context())); err != nil {
			t.Fatal(err)
		}
		c, err := s.Capture(t.Context(), id, spec(), false)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Ready(t.Context()); err != nil || c.Cold() {
			t.Fatalf("cold %v, %v", c.Cold(), err)
		}
		if _, _, found := s.fork(t, c); found != "word" {
			t.Errorf("the copy found %q", found)
		}
		c.Release()
		plan := s.plan(t, id, false)
		if plan.Kind != instance.Wake {
			t.Fatalf("the sleeper starts as %v", plan.Kind)
		}
		s.start(t, plan)
	}
}

// TestForkOfAStopped: there is no memory, and the copy boots with the disk.
func TestForkOfAStopped(t *testing.T) {
	s := newStage(t)
	id, m := s.running(t, false)
	if err := m.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	c, err := s.Capture(t.Context(), id, spec(), false)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Release()
	if err := c.Ready(t.Context()); err != nil || !c.Cold() {
		t.Fatalf("cold %v, %v", c.Cold(), err)
	}
	clone := instance.NewID()
	if err := c.Lay(t.Context(), clone); err != nil {
		t.Fatal(err)
	}
	plan, err := c.Start(t.Context(), clone, spec(), guestproto.NewMagic())
	if err != nil {
		t.Fatal(err)
	}
	plan.Release()
	if plan.Kind != instance.Clone || len(plan.Recipe.Disks[1].Backing) != 1 {
		t.Errorf("plan %v with disk %+v", plan.Kind, plan.Recipe.Disks[1])
	}
}

// unforkable is a machine whose disk cannot be forked while it is there.
type unforkable struct {
	vmm.Machine
	vmm.Saver
}

// TestForkByMoving takes machines whose disks cannot be forked: they are ended, and go on as
// copies of themselves.
func TestForkByMoving(t *testing.T) {
	for name, owner := range map[string]bool{"of a clone": false, "of an owner": true} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			id, m := s.running(t, owner)
			for round := range 3 {
				c, next := s.capture(t, id, unforkable{m, m.(vmm.Saver)})
				if next == m {
					t.Fatal("it goes on on a disk that copies share")
				}
				m = next
				clone, cm, found := s.fork(t, c)
				if found != "word" {
					t.Errorf("round %d: the clone found %q", round, found)
				}
				if got, want := s.layersOf(t, clone), s.layersOf(t, id); !slices.Equal(got, want) || len(got) != round+1 {
					t.Errorf("round %d: the clone lies on %v, the source on %v", round, got, want)
				}
				if err := errors.Join(cm.Kill(t.Context()), s.Clear(clone)); err != nil {
					t.Error(err)
				}
				c.Release()
			}
			if tops := s.tops(t, id); len(tops) != 1 {
				t.Errorf("the source has %v", tops)
			}
			if err := errors.Join(m.Kill(t.Context()), s.Clear(id)); err != nil {
				t.Fatal(err)
			}
			s.work.Wait()
			if left := s.names(t, s.home.Layers()); len(left) != 0 {
				t.Errorf("layers that nobody has: %v", left)
			}
		})
	}
}
