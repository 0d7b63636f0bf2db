package vmmtest

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/xfeldman/aegisvm/internal/vmm"
)

// readopt loses a machine and takes it over again.
func (s *suite) readopt(m vmm.Machine) vmm.Machine {
	s.Helper()
	spec := s.disown(m)
	next := s.h.Lose(s.T, m)
	again, err := next.Adopt(s.within(soon), spec.Dir)
	if err != nil {
		s.Fatalf("adopt: %v", err)
	}
	s.own(spec, again)
	return again
}

func (s *suite) adopt() {
	m, spec := s.start()
	s.answers(m)
	before, err := m.Usage()
	if err != nil {
		s.Fatal(err)
	}
	for range 2 {
		m = s.readopt(m)
		s.answers(m)
	}
	if after, err := m.Usage(); err != nil || after.PID != before.PID {
		s.Errorf("Usage before and after: %+v, %+v, %v", before, after, err)
	}
	s.oneAtATime(m.AttachNetwork)
	if err := m.Kill(s.within(soon)); err != nil {
		s.Fatal(err)
	}
	if e := s.exit(m, soon); e.Reason != vmm.Killed {
		s.Errorf("an adopted machine that was killed: %v", e)
	}
	s.empty(spec.Dir)
}

func (s *suite) adoptPaused() {
	m, _ := s.start()
	s.answers(m)
	if err := m.Pause(s.within(soon)); err != nil {
		s.Fatal(err)
	}
	m = s.readopt(m)
	s.paused(m, true)
	if err := m.Pause(s.within(soon)); err != nil {
		s.Fatal(err)
	}
	conn := s.dialGuest(m)
	if s.echoes(conn, quiet) {
		s.Error("a paused guest answers after it was adopted")
	}
	_ = conn.Close()
	if err := m.Resume(s.within(soon)); err != nil {
		s.Fatal(err)
	}
	s.answers(m)
}

func (s *suite) adoptTwice() {
	m, spec := s.start()
	for range 2 {
		err := s.atOnce("a second Adopt", func() error {
			_, err := s.h.Driver.Adopt(s.within(soon), spec.Dir)
			return err
		})
		if err == nil {
			s.Fatal("a machine was adopted that is in hand")
		}
		if errors.Is(err, vmm.ErrEnded) {
			s.Fatalf("a machine that runs is called ended: %v", err)
		}
		s.answers(m)
		m = s.readopt(m)
	}
}

func (s *suite) adoptEnded() {
	spec := s.h.NewSpec(s.T)
	if _, err := s.h.Driver.Adopt(s.within(soon), spec.Dir); !errors.Is(err, vmm.ErrEnded) {
		s.Errorf("adopt from an empty folder: %v, not ErrEnded", err)
	}
	m, spec := s.start()
	if err := m.Kill(s.within(soon)); err != nil {
		s.Fatal(err)
	}
	if _, err := s.h.Driver.Adopt(s.within(soon), spec.Dir); !errors.Is(err, vmm.ErrEnded) {
		s.Errorf("adopt a machine that was killed: %v, not ErrEnded", err)
	}
	// It ends while nobody looks.
	m, spec = s.start()
	s.tell(m, PowerOff)
	<-time.After(quiet / 6) // the word is read; a slow machine is still ending
	s.disown(m)
	next := s.h.Lose(s.T, m)
	deadline := time.Now().Add(s.h.Patience)
	for {
		again, err := next.Adopt(s.within(soon), spec.Dir)
		if errors.Is(err, vmm.ErrEnded) {
			break
		}
		if err != nil || time.Now().After(deadline) {
			s.Fatalf("adopt a machine that is ending: %v", err)
		}
		next = s.h.Lose(s.T, again)
		<-time.After(quiet)
	}
	s.empty(spec.Dir)
	// The folder can be used again.
	s.answers(s.startSpec(spec))
}

func (s *suite) guestEnds(w Word, want vmm.ExitReason) {
	for _, adopted := range []bool{false, true} {
		m, spec := s.start()
		if adopted {
			m = s.readopt(m)
		}
		s.tell(m, w)
		e := s.exit(m, s.h.Patience)
		if e.Reason != want {
			s.Errorf("adopted %v: the machine has %v, want %s", adopted, e, want)
		}
		s.Logf("adopted %v: %v", adopted, e)
		if want == vmm.Panicked && e.Detail == "" {
			s.Error("a panic without a word")
		}
		s.empty(spec.Dir)
	}
}

func (s *suite) died() {
	for _, adopted := range []bool{false, true} {
		m, spec := s.start()
		if adopted {
			m = s.readopt(m)
		}
		conn := s.dialGuest(m)
		s.h.Strike(s.T, m)
		e := s.exit(m, soon)
		if e.Reason != vmm.Died || e.Detail == "" {
			s.Errorf("adopted %v: a struck machine has %v", adopted, e)
		}
		s.Logf("adopted %v: %v", adopted, e)
		_ = conn.Close()
		s.empty(spec.Dir)
	}
}

// flood checks that a guest cannot fill the host's disk.
func (s *suite) flood() {
	m, spec := s.start()
	s.tell(m, Flood)
	<-time.After(4 * quiet)
	logs, err := filepath.Glob(filepath.Join(spec.Dir, "*.log"))
	if err != nil {
		s.Fatal(err)
	}
	for _, l := range logs {
		if fi, err := os.Stat(l); err == nil && fi.Size() > 1<<20 {
			s.Errorf("%s has %d bytes", filepath.Base(l), fi.Size())
		}
	}
	if err := m.Pause(s.within(soon)); err != nil {
		s.Errorf("pause a guest that floods its console: %v", err)
	}
}
