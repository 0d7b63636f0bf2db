package vmmtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/qcow2"
)

func (s *suite) needFork() {
	s.Helper()
	if !s.h.Driver.Info().Abilities.Fork {
		s.Skip("the driver does not fork disks")
	}
}

// withDisk returns the recipe of a machine with a disk of its own.
func (s *suite) withDisk() vmm.Spec {
	s.Helper()
	path := filepath.Join(s.TempDir(), "disk")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, int64(8*size.MiB))); err != nil {
		s.Fatal(err)
	}
	spec := s.h.NewSpec(s.T)
	spec.Disks = append(spec.Disks, vmm.Disk{Name: "own", Path: path, Format: vmm.Raw})
	return spec
}

// overlaid returns the disk that a fork has made of d.
func overlaid(d vmm.Disk, overlay string) vmm.Disk {
	d.Backing = append([]vmm.Layer{{Path: d.Path, Format: d.Format}}, d.Backing...)
	d.Path, d.Format = overlay, vmm.QCOW2
	return d
}

// forkDisk forks a machine's disk again and again, and looks at what source and
// clones find on theirs.
func (s *suite) forkDisk() {
	s.needFork()
	s.needSave()
	if !s.h.Files {
		s.Skip("guests of this driver have no disks")
	}
	spec := s.withDisk()
	m := s.startSpec(spec)
	disk := spec.Disks[len(spec.Disks)-1]
	var clones []vmm.Machine
	for round := range 3 {
		text := fmt.Sprintf("round %d", round)
		s.says(m, text, askWrite, "own", text)
		s.keep(m, text)
		s.pauseNow(m)
		overlay := filepath.Join(s.TempDir(), "overlay")
		if err := m.(vmm.DiskForker).ForkDisk(s.within(soon), "own", overlay); err != nil {
			s.Fatalf("fork a disk: %v", err)
		}
		before := s.digestOf(disk.Path)
		saved, mem := s.saveIn(m, s.TempDir())
		theirs := s.fork(spec, disk)
		if mem != nil { // the source goes on as a clone of itself
			s.kill(m)
			spec.Disks[len(spec.Disks)-1] = overlaid(disk, overlay)
			m = s.restart(spec, vmm.Restore{Saved: saved, Memory: mem})
		} else {
			s.resumeNow(m)
		}
		c := s.restart(theirs, vmm.Restore{Saved: saved, Memory: mem})
		clones = append(clones, c)
		s.remembers(c, text)
		s.says(c, text, askRead, "own")
		s.says(c, "of the clone", askWrite, "own", "of the clone")
		s.says(m, text, askRead, "own")
		s.says(m, "of the source", askWrite, "own", "of the source")
		s.says(c, "of the clone", askRead, "own")
		if s.digestOf(disk.Path) != before {
			s.Errorf("round %d: what was forked has changed", round)
		}
		disk = overlaid(disk, overlay)
		if round == 1 {
			m = s.readopt(m)
		}
	}
	for _, c := range clones {
		s.says(c, "of the clone", askRead, "own")
	}
	s.says(m, "of the source", askRead, "own")
	// What the source has now is what a cold start finds.
	s.kill(m)
	spec.Disks[len(spec.Disks)-1] = disk
	s.says(s.startSpec(spec), "of the source", askRead, "own")
}

// fork returns a recipe like spec with a disk of its own on what disk was.
func (s *suite) fork(spec vmm.Spec, disk vmm.Disk) vmm.Spec {
	s.Helper()
	theirs := s.h.NewSpec(s.T)
	overlay := filepath.Join(s.TempDir(), "overlay")
	if err := qcow2.Create(overlay, 8*size.MiB, vmm.Layer{Path: disk.Path, Format: disk.Format}); err != nil {
		s.Fatal(err)
	}
	theirs.Disks = append(theirs.Disks[:0:0], spec.Disks...)
	theirs.Disks[len(theirs.Disks)-1] = overlaid(disk, overlay)
	return theirs
}

func (s *suite) forkRefused() {
	s.needFork()
	spec := s.withDisk()
	base := spec.Disks[0]
	base.Name, base.ReadOnly = "base", true
	spec.Disks = append([]vmm.Disk{base}, spec.Disks...)
	m := s.startSpec(spec)
	f := m.(vmm.DiskForker)
	dir := s.TempDir()
	refused := func(why, name, overlay string) {
		s.Helper()
		before, _ := os.ReadDir(dir)
		if err := f.ForkDisk(s.within(soon), name, filepath.Join(dir, overlay)); err == nil {
			s.Errorf("forked though %s", why)
		}
		if after, _ := os.ReadDir(dir); len(after) != len(before) {
			s.Errorf("%s: something is left", why)
		}
	}
	s.answers(m)
	refused("it runs", "own", "overlay")
	s.pauseNow(m)
	refused("there is no such disk", "other", "overlay")
	refused("the disk is only read", "base", "overlay")
	refused("the folder is missing", "own", "missing/overlay")
	if err := os.WriteFile(filepath.Join(dir, "there"), []byte("mine"), 0o600); err != nil {
		s.Fatal(err)
	}
	refused("there is a file", "own", "there")
	if b, err := os.ReadFile(filepath.Join(dir, "there")); err != nil || string(b) != "mine" {
		s.Errorf("the file has %q, %v", b, err)
	}
	cause := errors.New("changed my mind")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(cause)
	if err := f.ForkDisk(ctx, "own", filepath.Join(dir, "overlay")); !errors.Is(err, cause) {
		s.Errorf("ForkDisk with a context that has ended: %v, not its cause", err)
	}
	if err := f.ForkDisk(s.within(soon), "own", filepath.Join(dir, "overlay")); err != nil {
		s.Errorf("fork after all this: %v", err)
	}
	if s.h.Driver.Info().Abilities.Save {
		s.saveIn(m, s.TempDir())
		refused("it was saved", "own", "another")
	}
	s.resumeNow(m)
	s.answers(m)
	s.kill(m)
	if err := f.ForkDisk(context.Background(), "own", filepath.Join(dir, "late")); !errors.Is(err, vmm.ErrEnded) {
		s.Errorf("ForkDisk after the end: %v, not ErrEnded", err)
	}
}
