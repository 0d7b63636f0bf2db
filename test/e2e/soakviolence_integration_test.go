//go:build integration

package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// The ways of violence. The first three hit the daemon, and are left out where it is to be
// left alone.
const (
	killDaemon = iota
	replaceDaemon
	stallDaemon
	killVM
	stallVM
	fillDisk
	nothing
	ways
)

// violence does something bad in the middle of a round, or nothing.
func (s *soak) violence(over <-chan struct{}, rough bool) {
	s.t.Helper()
	select {
	case <-time.After(time.Duration(s.rng.IntN(8000)) * time.Millisecond):
	case <-over:
	}
	way := s.rng.IntN(ways)
	if !rough {
		way = stallDaemon + s.rng.IntN(ways-stallDaemon)
	}
	switch way {
	case killDaemon:
		s.signal(syscall.SIGKILL)
		s.count("daemon killed", nil, 1)
		s.up()
	case replaceDaemon:
		s.signal(syscall.SIGTERM)
		s.count("daemon replaced", nil, 1)
		s.up()
	case stallDaemon:
		s.stall("daemon", s.daemon())
	case killVM, stallVM:
		s.hitVM(way)
	case fillDisk:
		s.full()
	}
}

// hitVM kills a VM that is not the steady one's, or has any VM stand still.
func (s *soak) hitVM(way int) {
	s.t.Helper()
	info, err := s.client().Info(s.t.Context(), steady)
	for id, pid := range s.machines() {
		if way == stallVM {
			s.stall("VM", pid)
			return
		}
		// Copies of the steady one may be killed; which it is has to be known.
		if err != nil || id == info.ID {
			continue
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err == nil || errors.Is(err, syscall.ESRCH) {
			s.count("VM killed", err, 1)
		}
		return
	}
}

// stall has a process stand still for a while, as on a host that has other things to do.
func (s *soak) stall(what string, pid int) {
	s.t.Helper()
	err := syscall.Kill(pid, syscall.SIGSTOP)
	if err == nil {
		time.Sleep(time.Duration(500+s.rng.IntN(2000)) * time.Millisecond)
		err = syscall.Kill(pid, syscall.SIGCONT)
	}
	if err != nil && !errors.Is(err, syscall.ESRCH) {
		s.t.Fatal(err)
	}
	s.count(what+" stalled", err, 1)
}

// full fills the disk of the home for a while, to the last megabytes.
func (s *soak) full() {
	s.t.Helper()
	if !s.fills {
		return
	}
	filler, err := os.Create(filepath.Join(s.home, "data", "filler"))
	if err != nil {
		s.t.Fatal(err)
	}
	size := int64(0)
	for step := int64(256 << 20); step >= 1<<20; {
		// Whoever else writes takes from the same room.
		switch err := syscall.Fallocate(int(filler.Fd()), 0, size, step); {
		case err == nil:
			size += step
		case errors.Is(err, syscall.ENOSPC):
			step /= 4
		default:
			s.t.Fatal(err)
		}
	}
	if err := filler.Truncate(max(0, size-int64(s.rng.IntN(16<<20)))); err != nil {
		s.t.Fatal(err)
	}
	time.Sleep(time.Duration(500+s.rng.IntN(1500)) * time.Millisecond)
	if err := errors.Join(filler.Close(), os.Remove(filler.Name())); err != nil {
		s.t.Fatal(err)
	}
	s.count("disk filled", nil, 1)
}
