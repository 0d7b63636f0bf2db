package fake_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/fake"
)

// sleeper starts a machine whose guest remembers something, and pauses it.
func sleeper(t *testing.T) (*fake.Host, vmm.Machine) {
	t.Helper()
	begun := make(chan struct{}, 10)
	host := fake.NewHost(func(ctx context.Context, b fake.Boot) vmm.Exit {
		if b.Saved == nil {
			b.OnSave(func() []byte { return []byte("word") })
		}
		begun <- struct{}{}
		return fake.Idle(ctx, b)
	})
	m := start(t, host)
	t.Cleanup(func() {
		for _, v := range host.VMs() {
			v.Die("the test is over")
		}
	})
	<-begun
	if err := m.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	return host, m
}

func saveOf(t *testing.T, m vmm.Machine) (vmm.Saved, vmm.Memory, error) {
	t.Helper()
	return m.(vmm.Saver).Save(t.Context(), vmm.Dest{Dir: t.TempDir()})
}

func TestSavedFaults(t *testing.T) {
	injected := errors.New("injected")
	host, m := sleeper(t)
	host.VM(t.Name()).Inject(fake.Faults{Save: injected, Fork: injected})
	if _, _, err := saveOf(t, m); !errors.Is(err, injected) {
		t.Errorf("save: %v", err)
	}
	if err := m.(vmm.DiskForker).ForkDisk(t.Context(), "disk", "overlay"); !errors.Is(err, injected) {
		t.Errorf("fork: %v", err)
	}
	host.VM(t.Name()).Inject(fake.Faults{})
	saved, mem, err := saveOf(t, m)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "memory")
	host.Inject(fake.Faults{Store: injected, Load: injected, Restore: injected})
	if _, err := mem.Store(t.Context(), path); !errors.Is(err, injected) {
		t.Errorf("store: %v", err)
	}
	host.Inject(fake.Faults{})
	if saved.Memory, err = mem.Store(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	host.Inject(fake.Faults{Store: injected, Load: injected, Restore: injected})
	d := host.Driver()
	if _, err := d.LoadMemory(t.Context(), saved); !errors.Is(err, injected) {
		t.Errorf("load: %v", err)
	}
	other := spec(t)
	if _, err := d.Start(t.Context(), other, vmm.Restore{Saved: saved}); !errors.Is(err, injected) {
		t.Errorf("restore: %v", err)
	}
	host.Inject(fake.Faults{})
	host.Upgrade("2")
	if _, err := d.Start(t.Context(), other, vmm.Restore{Saved: saved}); !errors.Is(err, vmm.ErrStale) {
		t.Errorf("restore under another version: %v", err)
	}
	host.Upgrade("1")
	if _, err := d.Start(t.Context(), other, vmm.Restore{Saved: saved}); err != nil {
		t.Errorf("restore: %v", err)
	}
}

func TestDamage(t *testing.T) {
	host, m := sleeper(t)
	host.Inject(fake.Faults{Damage: true})
	saved, mem, err := saveOf(t, m)
	if err != nil {
		t.Fatal(err)
	}
	d := host.Driver()
	if _, err := d.Start(t.Context(), spec(t), vmm.Restore{Saved: saved}); !errors.Is(err, vmm.ErrDamaged) {
		t.Errorf("a damaged state: %v", err)
	}
	if saved.Memory, err = mem.Store(t.Context(), filepath.Join(t.TempDir(), "memory")); err != nil {
		t.Fatal(err)
	}
	if _, err := d.LoadMemory(t.Context(), saved); !errors.Is(err, vmm.ErrDamaged) {
		t.Errorf("a damaged memory: %v", err)
	}
}

// TestSlowSave gives up a save that takes long, and lets the VMM die in others.
func TestSlowSave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host, m := sleeper(t)
		v := host.VM(t.Name())
		v.Inject(fake.Faults{SaveDelay: time.Hour})
		begin := time.Now()
		if _, _, err := saveOf(t, m); err != nil || time.Since(begin) != time.Hour {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		if err := errors.Join(m.Resume(t.Context()), m.Pause(t.Context())); err != nil {
			t.Fatal(err)
		}
		cause := errors.New("changed my mind")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, cause)
		defer cancel()
		dir := t.TempDir()
		if _, _, err := m.(vmm.Saver).Save(ctx, vmm.Dest{Dir: dir}); !errors.Is(err, cause) {
			t.Errorf("given up: %v", err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%d files are left, %v", len(left), err)
		}
		time.AfterFunc(time.Minute, func() { v.Die("struck") })
		if _, _, err := saveOf(t, m); !errors.Is(err, vmm.ErrEnded) {
			t.Errorf("a machine that dies: %v", err)
		}
		_, m = sleeper(t)
		m.(*fake.Machine).VM().Inject(fake.Faults{SaveDies: true})
		if _, _, err := saveOf(t, m); !errors.Is(err, vmm.ErrEnded) {
			t.Errorf("a machine that dies of it: %v", err)
		}
	})
}

// TestForkDisk forks a disk twice, and looks at what becomes of the recipe.
func TestForkDisk(t *testing.T) {
	dir := t.TempDir()
	disk, one, two := filepath.Join(dir, "disk"), filepath.Join(dir, "one"), filepath.Join(dir, "two")
	if err := errors.Join(os.WriteFile(disk, nil, 0o600), os.Truncate(disk, 1<<20)); err != nil {
		t.Fatal(err)
	}
	host := fake.NewHost(nil)
	s := spec(t)
	s.Disks = []vmm.Disk{{Name: "disk", Path: disk, Format: vmm.Raw}}
	m, err := host.Driver().Start(t.Context(), s, vmm.Boot{})
	if err != nil {
		t.Fatal(err)
	}
	f := m.(vmm.DiskForker)
	if err := errors.Join(m.Pause(t.Context()), f.ForkDisk(t.Context(), "disk", one), f.ForkDisk(t.Context(), "disk", two)); err != nil {
		t.Fatal(err)
	}
	got := host.VM(s.ID).Disks()[0]
	if got.Path != two || got.Format != vmm.QCOW2 || len(got.Backing) != 2 ||
		got.Backing[0] != (vmm.Layer{Path: one, Format: vmm.QCOW2}) || got.Backing[1] != (vmm.Layer{Path: disk, Format: vmm.Raw}) {
		t.Errorf("%+v", got)
	}
	if s.Disks[0].Path != disk {
		t.Error("the caller's recipe has changed")
	}
	if err := m.Kill(t.Context()); err != nil {
		t.Error(err)
	}
}
