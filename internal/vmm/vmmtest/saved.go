package vmmtest

import (
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// filled is how much of its memory a guest fills.
const filled = 4 << 20

func (s *suite) needSave() {
	s.Helper()
	if !s.h.Driver.Info().Abilities.Save {
		s.Skip("the driver does not save machines")
	}
}

// remembering starts a machine whose guest has something in mind.
func (s *suite) remembering(note string) (vmm.Machine, vmm.Spec) {
	s.Helper()
	m, spec := s.start()
	s.keep(m, note)
	s.says(m, "filled", askFill, strconv.Itoa(filled))
	return m, spec
}

// asBefore checks that a guest of remembering is what it was.
func (s *suite) asBefore(m vmm.Machine, note string) {
	s.Helper()
	s.remembers(m, note)
	var g Guest
	g.answer(askFill + " " + strconv.Itoa(filled))
	s.says(m, g.answer(askSum), askSum)
}

// saveIn saves a machine that is paused.
func (s *suite) saveIn(m vmm.Machine, dir string) (vmm.Saved, vmm.Memory) {
	s.Helper()
	saved, mem, err := m.(vmm.Saver).Save(s.within(s.h.Patience), vmm.Dest{Dir: dir})
	if err != nil {
		s.Fatalf("save: %v", err)
	}
	if (mem == nil) != saved.Whole {
		s.Fatalf("Whole is %v, and the memory %v", saved.Whole, mem)
	}
	if mem != nil {
		s.mu.Lock()
		s.held = append(s.held, mem)
		s.mu.Unlock()
	}
	s.paused(m, true)
	return saved, mem
}

// rest pauses a machine, saves it with its memory, and ends it.
func (s *suite) rest(m vmm.Machine) (vmm.Saved, vmm.Memory) {
	s.Helper()
	s.pauseNow(m)
	dir := s.TempDir()
	saved, mem := s.saveIn(m, dir)
	s.kill(m)
	if mem == nil {
		return saved, nil
	}
	f, err := mem.Store(s.within(s.h.Patience), filepath.Join(dir, "memory"))
	if err != nil {
		s.Fatalf("store: %v", err)
	}
	saved.Memory = f
	return saved, mem
}

// restart starts a machine from a saved one, and lets it run.
func (s *suite) restart(spec vmm.Spec, from vmm.Restore) vmm.Machine {
	s.Helper()
	m := s.restore(spec, from)
	s.resumeNow(m)
	return m
}

func (s *suite) restore(spec vmm.Spec, from vmm.Restore) vmm.Machine {
	s.Helper()
	m, err := s.h.Driver.Start(s.within(s.h.Patience), spec, from)
	if err != nil {
		s.Fatalf("start from a saved machine: %v (hint %q)", err, fault.HintOf(err))
	}
	s.own(spec, m)
	return m
}

func (s *suite) pauseNow(m vmm.Machine) {
	s.Helper()
	if err := m.Pause(s.within(soon)); err != nil {
		s.Fatalf("pause: %v", err)
	}
}

func (s *suite) resumeNow(m vmm.Machine) {
	s.Helper()
	if err := m.Resume(s.within(soon)); err != nil {
		s.Fatalf("resume: %v", err)
	}
}

func (s *suite) kill(m vmm.Machine) {
	s.Helper()
	spec := s.disown(m)
	if err := m.Kill(s.within(soon)); err != nil {
		s.Fatalf("kill: %v", err)
	}
	s.empty(spec.Dir)
}

// save saves a machine that goes on, twice, and starts what it was.
func (s *suite) save() {
	s.needSave()
	m, _ := s.remembering("one")
	s.pauseNow(m)
	_, mem := s.saveIn(m, s.TempDir())
	s.resumeNow(m)
	s.asBefore(m, "one")
	if f, err := mem.Store(s.within(soon), filepath.Join(s.TempDir(), "memory")); err == nil {
		s.Errorf("memory that has changed since was stored: %+v", f)
	}
	s.keep(m, "two")
	saved, mem := s.rest(m)
	if err := saved.Sync(); err != nil {
		s.Error(err)
	}
	if err := mem.Close(); err != nil {
		s.Error(err)
	}
	clone := s.restore(s.h.NewSpec(s.T), vmm.Restore{Saved: saved})
	s.paused(clone, true)
	conn := s.dialGuest(clone)
	if s.echoes(conn, quiet) {
		s.Error("a guest that was not resumed answers")
	}
	_ = conn.Close()
	s.resumeNow(clone)
	s.asBefore(clone, "two")
	s.oneAtATime(clone.AttachNetwork)
}

// saveCycles lets one machine sleep and wake in every way, again and again.
func (s *suite) saveCycles() {
	s.needSave()
	m, spec := s.remembering("0")
	round := 0
	check := func(m vmm.Machine) {
		s.asBefore(m, strconv.Itoa(round))
		round++
		s.keep(m, strconv.Itoa(round))
	}
	for range 3 {
		saved, mem := s.rest(m) // from its files
		_ = mem.Close()
		m = s.restart(spec, vmm.Restore{Saved: saved})
		check(m)
		saved, mem = s.rest(m) // on what is at hand
		m = s.restart(spec, vmm.Restore{Saved: saved, Memory: mem, Own: true})
		check(m)
		saved, mem = s.rest(m) // as a clone
		m = s.restart(spec, vmm.Restore{Saved: saved, Memory: mem})
		check(m)
		saved, mem = s.rest(m) // whose memory is the state's, or apart from it
		m = s.restart(spec, vmm.Restore{Saved: saved, Memory: mem})
		check(m)
		saved, mem = s.rest(m) // if it was apart, of a clone of a clone
		if mem != nil {
			_ = mem.Close()
		}
		m = s.restart(spec, vmm.Restore{Saved: saved})
		check(m)
	}
}

// saveBusy saves machines whose guests are talked to.
func (s *suite) saveBusy() {
	s.needSave()
	m, _ := s.remembering("busy")
	conn := s.dialGuest(m)
	var talk sync.WaitGroup
	talk.Go(func() {
		for b := make([]byte, 16<<10); ; {
			if _, err := conn.Write(b); err != nil {
				return
			}
		}
	})
	talk.Go(func() {
		for b := make([]byte, 16<<10); ; {
			if _, err := conn.Read(b); err != nil {
				return
			}
		}
	})
	<-time.After(quiet)
	s.pauseNow(m)
	saved, mem := s.saveIn(m, s.TempDir())
	s.kill(m)
	_ = conn.Close()
	talk.Wait()
	for range 2 {
		s.asBefore(s.restart(s.h.NewSpec(s.T), vmm.Restore{Saved: saved, Memory: mem}), "busy")
	}
}

func (s *suite) saveRefused() {
	s.needSave()
	m, _ := s.remembering("here")
	sv := m.(vmm.Saver)
	refused := func(why, dir string) {
		s.Helper()
		before, _ := os.ReadDir(dir)
		if _, _, err := sv.Save(s.within(soon), vmm.Dest{Dir: dir}); err == nil {
			s.Errorf("saved though %s", why)
		}
		if after, _ := os.ReadDir(dir); len(after) != len(before) {
			s.Errorf("%s: something is left in %s", why, dir)
		}
	}
	refused("it runs", s.TempDir())
	s.asBefore(m, "here")
	s.pauseNow(m)
	refused("the folder is missing", filepath.Join(s.TempDir(), "missing"))
	cause := errors.New("changed my mind")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(cause)
	if _, _, err := sv.Save(ctx, vmm.Dest{Dir: s.TempDir()}); !errors.Is(err, cause) {
		s.Errorf("Save with a context that has ended: %v, not its cause", err)
	}
	dir := s.TempDir()
	s.saveIn(m, dir)
	refused("it was saved at this pause", s.TempDir())
	s.resumeNow(m)
	s.pauseNow(m)
	refused("there is another", dir)
	s.resumeNow(m)
	s.asBefore(m, "here")
}

// saveCanceled gives saves up at various moments: they are complete or nothing, and
// the machine goes on.
func (s *suite) saveCanceled() {
	s.needSave()
	m, spec := s.remembering("on")
	saved, mem := s.rest(m)
	cause := errors.New("changed my mind")
	for _, own := range []bool{false, true} {
		m := s.restart(spec, vmm.Restore{Saved: saved, Memory: mem})
		if own {
			s.kill(m)
			m = s.restart(spec, vmm.Restore{Saved: saved})
		}
		for _, after := range []time.Duration{time.Millisecond, 3 * time.Millisecond, 20 * time.Millisecond, 80 * time.Millisecond} {
			s.asBefore(m, "on")
			s.pauseNow(m)
			dir := s.TempDir()
			ctx, cancel := context.WithCancelCause(context.Background())
			timer := time.AfterFunc(after, func() { cancel(cause) })
			_, mem, err := m.(vmm.Saver).Save(ctx, vmm.Dest{Dir: dir})
			timer.Stop()
			cancel(nil)
			left, _ := os.ReadDir(dir)
			switch {
			case err != nil && (!errors.Is(err, cause) || len(left) > 0):
				s.Errorf("own %v, after %v: %v, and %d files", own, after, err, len(left))
			case err == nil && len(left) != 1:
				s.Errorf("own %v, after %v: %d files of a save", own, after, len(left))
			}
			if mem != nil {
				_ = mem.Close()
			}
			s.resumeNow(m)
		}
		s.asBefore(m, "on")
		s.kill(m)
	}
}

// saveDied strikes machines while they are saved.
func (s *suite) saveDied() {
	s.needSave()
	m, _ := s.remembering("gone")
	saved, mem := s.rest(m)
	for _, after := range []time.Duration{0, 2 * time.Millisecond, 10 * time.Millisecond, 50 * time.Millisecond} {
		m := s.restart(s.h.NewSpec(s.T), vmm.Restore{Saved: saved, Memory: mem})
		s.answers(m)
		s.pauseNow(m)
		dir := s.TempDir()
		struck := make(chan struct{})
		go func() {
			defer close(struck)
			<-time.After(after)
			s.h.Strike(s.T, m)
		}()
		var err error
		_ = s.atOnce("Save of a machine that dies", func() error {
			_, _, err = m.(vmm.Saver).Save(context.Background(), vmm.Dest{Dir: dir})
			return nil
		})
		<-struck
		left, _ := os.ReadDir(dir)
		if err != nil && (!errors.Is(err, vmm.ErrEnded) || len(left) > 0) {
			s.Errorf("struck after %v: %v, and %d files", after, err, len(left))
		}
		if e := s.exit(m, soon); e.Reason != vmm.Died {
			s.Errorf("a struck machine has %v", e)
		}
	}
	s.asBefore(s.restart(s.h.NewSpec(s.T), vmm.Restore{Saved: saved}), "gone")
}

// digestOf sums a file up.
func (s *suite) digestOf(path string) [sha256.Size]byte {
	s.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		s.Fatal(err)
	}
	return sha256.Sum256(b)
}
