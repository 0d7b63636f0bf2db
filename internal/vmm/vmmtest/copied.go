package vmmtest

import (
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// copied takes copies of the memory of a machine that goes on: each is what was there at its
// pause, whatever the machine and other clones do.
func (s *suite) copied() {
	s.needSave()
	m, _ := s.remembering("first")
	var clones []vmm.Machine
	notes := []string{"first", "second", "third"}
	for _, note := range notes {
		s.keep(m, note)
		s.pauseNow(m)
		saved, mem := s.saveIn(m, s.TempDir())
		copier, ok := mem.(vmm.MemoryCopier)
		if !ok {
			s.Skip("the memory of this driver cannot be copied")
		}
		if none, err := copier.Copy(s.within(s.h.Patience), 1); none != nil || err != nil {
			s.Errorf("a copy of more than was allowed: %v, %v", none, err)
		}
		dup, err := copier.Copy(s.within(s.h.Patience), size.TiB)
		if err != nil || dup == nil {
			s.Fatalf("copy: %v, %v", dup, err)
		}
		s.mu.Lock()
		s.held = append(s.held, dup)
		s.mu.Unlock()
		s.resumeNow(m)
		if _, err := copier.Copy(s.within(s.h.Patience), size.TiB); err == nil {
			s.Error("memory was copied whose machine has gone on")
		}
		s.keep(m, "of the source")
		for range 2 {
			c := s.restart(s.h.NewSpec(s.T), vmm.Restore{Saved: saved, Memory: dup})
			s.asBefore(c, note)
			s.keep(c, "of a clone")
			clones = append(clones, c)
		}
	}
	s.ofClone(clones[0])
	s.asBefore(m, "of the source")
	for _, c := range clones {
		s.asBefore(c, "of a clone")
	}
}

// ofClone saves a clone, which does not own its memory. If that comes apart, it is no machine's: it is as
// it was, whatever the clone does, and so is what a copy of it is.
func (s *suite) ofClone(m vmm.Machine) {
	s.Helper()
	s.pauseNow(m)
	saved, mem := s.saveIn(m, s.TempDir())
	s.resumeNow(m)
	if mem == nil {
		return // it is in the state
	}
	s.keep(m, "later")
	dup, err := mem.(vmm.MemoryCopier).Copy(s.within(s.h.Patience), 1)
	if err != nil || dup == nil {
		s.Fatalf("copy of what no machine holds: %v, %v", dup, err)
	}
	s.mu.Lock()
	s.held = append(s.held, dup)
	s.mu.Unlock()
	for _, from := range []vmm.Memory{mem, dup} {
		spec := s.h.NewSpec(s.T)
		if c, err := s.h.Driver.Start(s.within(s.h.Patience), spec, vmm.Restore{Saved: saved, Memory: from, Own: true}); err == nil {
			s.own(spec, c)
			s.Error("memory that others may start from is a machine's own")
		}
		c := s.restart(s.h.NewSpec(s.T), vmm.Restore{Saved: saved, Memory: from})
		s.asBefore(c, "of a clone")
		s.kill(c)
	}
	s.asBefore(m, "later")
	s.keep(m, "of a clone")
}
