package machine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/fake"
)

// TestCaptureFails: the source goes on with the disk that it had.
func TestCaptureFails(t *testing.T) {
	for name, harm := range map[string]func(*stage, instance.ID){
		"the disk is not forked": func(s *stage, id instance.ID) {
			s.host.VM(string(id)).Inject(fake.Faults{Fork: errInjected})
		},
		"the state is not saved": func(s *stage, id instance.ID) {
			s.host.VM(string(id)).Inject(fake.Faults{Save: errInjected})
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			id, m := s.running(t, true)
			harm(s, id)
			c, err := s.Capture(t.Context(), id, spec(), true)
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Pause(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Take(t.Context(), m); !errors.Is(err, errInjected) {
				t.Errorf("err = %v", err)
			}
			c.Release()
			s.work.Wait()
			if left := s.names(t, s.home.Snapshots()); len(left) != 0 {
				t.Errorf("%v is left", left)
			}
			top, err := s.top(s.home.Instance(string(id)))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(top); err != nil {
				t.Error(err)
			}
			for _, l := range s.layersOf(t, id) {
				if _, err := os.Stat(s.layerPath(l)); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestDaemonDiesInACapture: whatever has happened by then, the next daemon has a disk for the
// instance and removes the rest.
func TestDaemonDiesInACapture(t *testing.T) {
	for name, until := range map[string]func(*testing.T, *stage, instance.Capture, vmm.Machine){
		"before the machine was taken": func(*testing.T, *stage, instance.Capture, vmm.Machine) {},
		"after it was": func(t *testing.T, _ *stage, c instance.Capture, m vmm.Machine) {
			t.Helper()
			if err := m.Pause(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Take(t.Context(), m); err != nil {
				t.Fatal(err)
			}
		},
		"while the memory is made ready": func(t *testing.T, s *stage, c instance.Capture, m vmm.Machine) {
			t.Helper()
			if err := m.Pause(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Take(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			dir := c.(*capture).dir
			if err := os.Mkdir(filepath.Join(dir, "vmm"), 0o700); err != nil {
				t.Fatal(err)
			}
			if _, err := s.driver.Start(t.Context(), vmm.Spec{ID: "helper", Dir: filepath.Join(dir, "vmm")}, vmm.Boot{}); err != nil {
				t.Fatal(err)
			}
			<-s.begun
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			id, m := s.running(t, false)
			c, err := s.Capture(t.Context(), id, spec(), true)
			if err != nil {
				t.Fatal(err)
			}
			until(t, s, c, m)
			s.host.Restart()
			next := s.daemon(t, s.harness)
			if err := next.Recover(t.Context()); err != nil {
				t.Fatal(err)
			}
			if left := s.names(t, s.home.Snapshots()); len(left) != 0 {
				t.Errorf("%v is left", left)
			}
			if n := len(s.host.VMs()); n != 1 {
				t.Errorf("%d machines", n)
			}
			if n := len(s.names(t, s.home.Layers())); n != 1 {
				t.Errorf("%d layers", n) // the one that the instance lies on
			}
			s.Ground = next
			adopted, err := next.driver.Adopt(t.Context(), next.Dir(id))
			if err != nil {
				t.Fatal(err)
			}
			// It can be captured again, whatever it writes to by now.
			if err := adopted.Resume(t.Context()); err != nil {
				t.Fatal(err)
			}
			again, adopted := s.capture(t, id, adopted)
			defer again.Release()
			if _, _, found := s.fork(t, again); found != "word" {
				t.Errorf("a later fork finds %q", found)
			}
			if err := adopted.Kill(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, l := range s.plan(t, id, true).Recipe.Disks[1].Backing {
				if _, err := os.Stat(l.Path); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestTidy: a disk of many layers becomes one file, with what it held.
func TestTidy(t *testing.T) {
	s := newStage(t)
	id, m := s.running(t, true)
	top, err := s.top(s.home.Instance(string(id)))
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(top, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("kept"), 5<<30); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for range maxChain {
		c, next := s.capture(t, id, m)
		m = next
		c.Release()
	}
	if err := errors.Join(m.Kill(t.Context()), s.Tidy(t.Context(), id)); err != nil {
		t.Fatal(err)
	}
	if n := len(s.layersOf(t, id)); n != maxChain {
		t.Errorf("a disk of %d layers became one of %d", maxChain, n)
	}
	m = s.start(t, s.plan(t, id, true))
	<-s.begun
	c, m := s.capture(t, id, m)
	c.Release()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Tidy(ctx, id); err == nil || len(s.layersOf(t, id)) != maxChain+1 {
		t.Errorf("given up: %v, %d layers", err, len(s.layersOf(t, id)))
	}
	if err := errors.Join(m.Kill(t.Context()), s.Tidy(t.Context(), id)); err != nil {
		t.Fatal(err)
	}
	s.work.Wait()
	if l, n := s.layersOf(t, id), s.names(t, s.home.Layers()); len(l) != 0 || len(n) != 0 {
		t.Errorf("it lies on %v; there are %v", l, n)
	}
	if top, err = s.top(s.home.Instance(string(id))); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4)
	if f, err = os.Open(top); err == nil {
		_, err = f.ReadAt(b, 5<<30)
		err = errors.Join(err, f.Close())
	}
	if err != nil || string(b) != "kept" || len(s.tops(t, id)) != 1 {
		t.Errorf("%s holds %q, %v; %v", top, b, err, s.tops(t, id))
	}
}

// TestCompact: what begins with a disk of many layers has one of them, while its source keeps
// its own; memory that is saved goes on with a disk that was made one file.
func TestCompact(t *testing.T) {
	s := newStage(t)
	id, m := s.running(t, true)
	for range maxChain {
		c, next := s.capture(t, id, m)
		m = next
		c.Release()
	}
	c, m := s.capture(t, id, m)
	before := s.layersOf(t, id)
	clone, cm, found := s.fork(t, c)
	if l := s.layersOf(t, clone); found != "word" || len(l) != 1 || slices.Contains(before, l[0]) {
		t.Errorf("the clone found %q and lies on %v, the source on %v", found, l, before)
	}
	if err := errors.Join(s.Started(clone), cm.Kill(t.Context()), s.Clear(clone)); err != nil {
		t.Error(err)
	}
	c.Release()
	if now := s.layersOf(t, id); !slices.Equal(now, before) {
		t.Errorf("the source lay on %v, and lies on %v", before, now)
	}
	s.work.Wait()
	if n := len(s.names(t, s.home.Layers())); n != len(before) {
		t.Errorf("%d layers, %d of them named", n, len(before))
	}

	if err := errors.Join(m.Pause(t.Context()), s.Save(t.Context(), id, m), m.Kill(t.Context())); err != nil {
		t.Fatal(err)
	}
	plan := s.plan(t, id, false)
	if plan.Kind != instance.Wake || len(s.layersOf(t, id)) != 0 {
		t.Errorf("kind %d, %d layers", plan.Kind, len(s.layersOf(t, id)))
	}
	if err := s.start(t, plan).Kill(t.Context()); err != nil {
		t.Error(err)
	}
}
