package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/erofs/go-erofs"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// programs puts programs where the Ground finds them, and nowhere else.
type programs struct{ dir string }

func (s *stage) programs(t *testing.T) programs {
	t.Helper()
	p := programs{t.TempDir()}
	s.tools.every = []string{"common", "not-built"}
	s.tools.find = func(name string) (string, error) {
		path := filepath.Join(p.dir, name)
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("%s: %w", name, fs.ErrNotExist)
		}
		return path, nil
	}
	return p
}

func (p programs) put(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// toolsOf returns the disk of programs of a plan, or "".
func toolsOf(plan instance.Plan) string {
	for _, d := range plan.Recipe.Disks {
		if d.Name == ToolsDisk && d.ReadOnly {
			return d.Path
		}
	}
	return ""
}

// TestTools brings the programs of every VM and those of a kit in, on one disk for all who
// have the same.
func TestTools(t *testing.T) {
	s := newStage(t)
	p := s.programs(t)
	if disk := toolsOf(s.plan(t, instance.NewID(), true)); disk != "" {
		t.Errorf("there are no programs, and a disk %s of them", disk)
	}
	p.put(t, "common", "one")
	p.put(t, "special", "two")
	first, second := toolsOf(s.plan(t, instance.NewID(), true)), toolsOf(s.plan(t, instance.NewID(), true))
	if first == "" || first != second {
		t.Errorf("disks %q and %q", first, second)
	}
	of := spec()
	of.Kit = instance.Kit{Name: "k", Programs: []string{"special"}}
	plan, err := s.Prepare(t.Context(), instance.NewID(), of, guestproto.NewMagic(), true)
	if err != nil {
		t.Fatal(err)
	}
	disk := toolsOf(plan)
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // only read
	img, err := erofs.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"bin/common": "one", "bin/special": "two"} {
		if b, err := fs.ReadFile(img, name); string(b) != want || err != nil {
			t.Errorf("%s: %q, %v", name, b, err)
		}
		if fi, err := fs.Stat(img, name); err != nil || fi.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v, %v", name, fi.Mode(), err)
		}
	}
	p.put(t, "common", "another") // an update
	if now := toolsOf(s.plan(t, instance.NewID(), true)); now == first {
		t.Error("the disk does not follow its programs")
	}
	of.Kit.Programs = []string{"nowhere"}
	id := instance.NewID()
	_, err = s.Prepare(t.Context(), id, of, guestproto.NewMagic(), true)
	if fault.KindOf(err) != fault.Unavailable || fault.HintOf(err) == "" {
		t.Errorf("a kit without its program: %v", err)
	}
	if _, err := os.Stat(s.home.Instance(string(id))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is left of it: %v", err)
	}
}

// TestToolsStayWithMemory: a machine that goes on from memory has the disk that it was
// started with, whatever the host has now. A disk that nobody names goes.
func TestToolsStayWithMemory(t *testing.T) {
	s := newStage(t)
	p := s.programs(t)
	p.put(t, "common", "old")
	id := s.asleep(t)
	old := toolsOf(s.plan(t, id, false))
	p.put(t, "common", "newer")
	if plan := s.plan(t, id, false); plan.Kind != instance.Wake || toolsOf(plan) != old || old == "" {
		t.Errorf("a plan of kind %v with %q, the memory has %q", plan.Kind, toolsOf(plan), old)
	}
	stray := filepath.Join(s.home.Tools(), "stray.erofs")
	if err := os.WriteFile(stray, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	next := s.reborn(t)
	if err := next.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(stray); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nobody needs it: %v", err)
	}
	s.wakes(t, id)
	if err := s.Clear(id); err != nil {
		t.Fatal(err)
	}
	if err := next.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nobody needs it any more: %v", err)
	}
}

// TestWakeWithoutTools boots what cannot go on.
func TestWakeWithoutTools(t *testing.T) {
	s := newStage(t)
	p := s.programs(t)
	p.put(t, "common", "old")
	id := s.asleep(t)
	remove(t, toolsOf(s.plan(t, id, false)))
	if _, err := s.Prepare(t.Context(), id, spec(), guestproto.NewMagic(), false); !errors.Is(err, vmm.ErrStale) {
		t.Errorf("err = %v", err)
	}
	if err := s.Spend(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if plan := s.plan(t, id, true); toolsOf(plan) == "" {
		t.Error("the disk is not made again")
	}
}

// TestForksHaveTheSourcesTools: so have templates and their clones.
func TestForksHaveTheSourcesTools(t *testing.T) {
	s := newStage(t)
	p := s.programs(t)
	p.put(t, "common", "old")
	id, m := s.running(t, true)
	old := s.host.VM(string(id)).Disks()[2].Path
	p.put(t, "common", "newer")
	c, _ := s.capture(t, id, m)
	defer c.Release()
	fork, _, _ := s.fork(t, c)
	disks := s.host.VM(string(fork)).Disks()
	if len(disks) != 3 || disks[2].Path != old {
		t.Errorf("the fork has %+v, its source %s", disks, old)
	}
	if clone := s.plan(t, instance.NewID(), false); clone.Kind != instance.Clone || toolsOf(clone) == old || toolsOf(clone) == "" {
		t.Errorf("a clone of kind %v with %q", clone.Kind, toolsOf(clone))
	}
}
