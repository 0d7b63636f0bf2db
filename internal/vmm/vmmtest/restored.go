package vmmtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// clones checks that clones of one machine differ from then on, and that what they
// came from does not.
func (s *suite) clones() {
	s.needSave()
	m, _ := s.remembering("source")
	saved, mem := s.rest(m)
	before := s.digestOf(saved.Memory.Path)
	loaded, err := s.h.Driver.(vmm.MemoryLoader).LoadMemory(s.within(s.h.Patience), saved)
	if err != nil {
		s.Fatalf("load memory: %v", err)
	}
	defer loaded.Close() //nolint:errcheck // the test is about something else
	var all []vmm.Machine
	for i := range 4 {
		from := vmm.Restore{Saved: saved, Memory: mem}
		if i%2 == 1 {
			from.Memory = loaded
		}
		c := s.restart(s.h.NewSpec(s.T), from)
		s.asBefore(c, "source")
		s.keep(c, fmt.Sprintf("clone %d", i))
		s.says(c, "filled", askFill, strconv.Itoa(filled-i))
		all = append(all, c)
	}
	for i, c := range all {
		s.remembers(c, fmt.Sprintf("clone %d", i))
	}
	for _, held := range []vmm.Memory{mem, loaded} {
		again, err := held.Store(s.within(s.h.Patience), filepath.Join(s.TempDir(), "memory"))
		if err != nil {
			s.Fatalf("store: %v", err)
		}
		if again.Digest != saved.Memory.Digest || s.digestOf(again.Path) != before {
			s.Error("clones have changed the memory they came from")
		}
	}
	if s.digestOf(saved.Memory.Path) != before {
		s.Error("clones have changed the file they came from")
	}
	// The clones live without the files and without whoever held the memory.
	if err := errors.Join(os.Remove(saved.Memory.Path), os.Remove(saved.State.Path), mem.Close(), loaded.Close()); err != nil {
		s.Error(err)
	}
	for i, c := range all {
		s.remembers(c, fmt.Sprintf("clone %d", i))
	}
	// A clone of a clone: its memory comes with its state, and then is one of its own.
	s.keep(all[0], "clone of a clone")
	whole, _ := s.rest(all[0])
	own := s.restore(s.h.NewSpec(s.T), vmm.Restore{Saved: whole})
	saved, mem = s.saveIn(own, s.TempDir()) // before it has run
	s.kill(own)
	for range 2 {
		s.remembers(s.restart(s.h.NewSpec(s.T), vmm.Restore{Saved: saved, Memory: mem}), "clone of a clone")
	}
}

// memory checks who may use a memory when.
func (s *suite) memory() {
	s.needSave()
	m, spec := s.remembering("mine")
	s.pauseNow(m)
	dir := s.TempDir()
	saved, mem := s.saveIn(m, dir)
	refused := func(what string, from vmm.Restore) {
		s.Helper()
		spec := s.h.NewSpec(s.T)
		c, err := s.h.Driver.Start(s.within(s.h.Patience), spec, from)
		if err == nil {
			s.Errorf("%s: it starts", what)
			s.own(spec, c)
			return
		}
		if errors.Is(err, vmm.ErrStale) || errors.Is(err, vmm.ErrDamaged) {
			s.Errorf("%s: %v", what, err)
		}
		s.empty(spec.Dir)
	}
	clone, own := vmm.Restore{Saved: saved, Memory: mem}, vmm.Restore{Saved: saved, Memory: mem, Own: true}
	refused("a clone of a machine that exists", clone)
	refused("the memory of a machine that exists", own)
	file, err := mem.Store(s.within(s.h.Patience), filepath.Join(dir, "memory"))
	if err != nil {
		s.Fatalf("store the memory of a paused machine: %v", err)
	}
	saved.Memory = file
	s.kill(m)
	m = s.restore(spec, own)
	refused("a memory that another has", own)
	refused("a clone of a memory that another has", clone)
	s.kill(m) // it has not run: the memory is as it was
	m = s.restart(spec, own)
	s.asBefore(m, "mine")
	s.kill(m)
	refused("a memory whose machine has run", own)
	refused("a clone of a memory whose machine has run", clone)
	_ = mem.Close()
	refused("a memory that was closed", clone)

	saved, mem = s.rest(s.restart(spec, vmm.Restore{Saved: saved}))
	clone, own = vmm.Restore{Saved: saved, Memory: mem}, vmm.Restore{Saved: saved, Memory: mem, Own: true}
	c := s.restart(s.h.NewSpec(s.T), clone)
	refused("the memory that clones are of", own)
	other, of := s.rest(s.restart(s.h.NewSpec(s.T), vmm.Restore{Saved: saved}))
	refused("the memory of another", vmm.Restore{Saved: other, Memory: mem})
	refused("the memory of another, for its own", vmm.Restore{Saved: saved, Memory: of, Own: true})
	whole, _ := s.rest(c)
	refused("a memory beside a whole state", vmm.Restore{Saved: whole, Memory: mem})
}

// damage is one way to harm a file.
type damage struct {
	name string
	do   func(b []byte) []byte // nil removes the file
}

var damages = []damage{
	{"missing", nil},
	{"empty", func([]byte) []byte { return []byte{} }},
	{"shortened", func(b []byte) []byte { return b[:len(b)-len(b)/3] }},
	{"short of a byte", func(b []byte) []byte { return b[:len(b)-1] }},
	{"longer", func(b []byte) []byte { return append(b, 0) }},
	{"changed in the middle", func(b []byte) []byte { return flip(b, lastData(b)/2) }},
	{"changed at its end", func(b []byte) []byte { return flip(b, len(b)-1) }},
	{"changed at its beginning", func(b []byte) []byte { return flip(b, 0) }},
	{"another file", func(b []byte) []byte { return bytes.Repeat([]byte("another "), len(b)/8+1)[:len(b)] }},
}

// flip changes a byte at or after i: the first that is not zero, which may be a hole
// that nobody reads.
func flip(b []byte, i int) []byte {
	for b[i] == 0 && i < len(b)-1 {
		i++
	}
	b[i] ^= 0x10
	return b
}

func lastData(b []byte) int { return len(bytes.TrimRight(b, "\x00")) }

func (s *suite) restoreDamaged() {
	s.needSave()
	m, _ := s.remembering("whole")
	saved, mem := s.rest(m)
	c := s.restart(s.h.NewSpec(s.T), vmm.Restore{Saved: saved, Memory: mem})
	s.answers(c)
	whole, _ := s.rest(c)
	_ = mem.Close()
	for _, target := range []struct {
		name  string
		saved vmm.Saved
		file  vmm.File
	}{
		{"the state", saved, saved.State}, {"the memory", saved, saved.Memory}, {"the whole state", whole, whole.State},
	} {
		good, err := os.ReadFile(target.file.Path)
		if err != nil {
			s.Fatal(err)
		}
		for _, d := range damages {
			name := target.name + " is " + d.name
			err := os.Remove(target.file.Path)
			if d.do != nil {
				err = os.WriteFile(target.file.Path, d.do(bytes.Clone(good)), 0o600)
			}
			if err != nil {
				s.Fatal(err)
			}
			s.unusable(name, s.h.NewSpec(s.T), target.saved, vmm.ErrDamaged)
		}
		if err := os.WriteFile(target.file.Path, good, 0o600); err != nil { //nolint:gosec // a file of the driver under test
			s.Fatal(err)
		}
	}
	s.asBefore(s.restart(s.h.NewSpec(s.T), vmm.Restore{Saved: saved}), "whole")
	s.asBefore(s.restart(s.h.NewSpec(s.T), vmm.Restore{Saved: whole}), "whole")
}

// unusable checks that a saved machine does not start, and why.
func (s *suite) unusable(name string, spec vmm.Spec, saved vmm.Saved, want error) {
	s.Helper()
	m, err := s.h.Driver.Start(s.within(s.h.Patience), spec, vmm.Restore{Saved: saved})
	if err == nil {
		s.Errorf("%s: it starts", name)
		s.own(spec, m)
		return
	}
	if !errors.Is(err, want) || fault.HintOf(err) == "" || fault.BlameOf(err) == "" {
		s.Errorf("%s: %v [%s; %s], not %v", name, err, fault.BlameOf(err), fault.HintOf(err), want)
	}
	s.empty(spec.Dir)
}

func (s *suite) restoreStale() {
	s.needSave()
	m, _ := s.remembering("stale")
	saved, _ := s.rest(m)
	for name, change := range map[string]func(*vmm.Spec, *vmm.Saved){
		"another driver": func(_ *vmm.Spec, sd *vmm.Saved) { sd.Driver = "another" },
		"another VMM":    func(_ *vmm.Spec, sd *vmm.Saved) { sd.Identity = "another " + sd.Identity },
		"more memory":    func(sp *vmm.Spec, _ *vmm.Saved) { sp.Memory += 16 * size.MiB },
		"more vCPUs":     func(sp *vmm.Spec, _ *vmm.Saved) { sp.VCPUs++ },
	} {
		spec, other := s.h.NewSpec(s.T), saved
		change(&spec, &other)
		s.unusable(name, spec, other, vmm.ErrStale)
	}
	s.asBefore(s.restart(s.h.NewSpec(s.T), vmm.Restore{Saved: saved}), "stale")
}

func (s *suite) restoreCanceled() {
	s.needSave()
	m, _ := s.remembering("later")
	saved, mem := s.rest(m)
	c := s.restart(s.h.NewSpec(s.T), vmm.Restore{Saved: saved, Memory: mem})
	s.answers(c)
	whole, _ := s.rest(c)
	cause := errors.New("changed my mind")
	for name, from := range map[string]vmm.Restore{
		"clone": {Saved: saved, Memory: mem}, "own": {Saved: saved}, "whole": {Saved: whole},
	} {
		for _, after := range []time.Duration{0, 5 * time.Millisecond, 15 * time.Millisecond, 40 * time.Millisecond, 100 * time.Millisecond} {
			spec := s.h.NewSpec(s.T)
			ctx, cancel := context.WithCancelCause(context.Background())
			timer := time.AfterFunc(after, func() { cancel(cause) })
			m, err := s.h.Driver.Start(ctx, spec, from)
			timer.Stop()
			switch {
			case err == nil:
				s.own(spec, m)
				s.resumeNow(m)
				s.remembers(m, "later")
			case !errors.Is(err, cause):
				s.Errorf("%s canceled after %v: %v, not its context's cause", name, after, err)
				fallthrough
			default:
				s.empty(spec.Dir)
			}
			cancel(nil)
		}
	}
}

// adoptRestored checks that a machine that was started from a saved one, and its
// memory, are known to a daemon that did not start it.
func (s *suite) adoptRestored() {
	s.needSave()
	m, spec := s.remembering("adopted")
	m = s.readopt(m)
	s.pauseNow(m)
	s.saveIn(m, s.TempDir())
	m = s.readopt(m) // of a daemon that died while it let the machine sleep
	s.paused(m, true)
	s.resumeNow(m)
	s.asBefore(m, "adopted")
	saved, mem := s.rest(m) // an owner
	clone := s.readopt(s.restore(s.h.NewSpec(s.T), vmm.Restore{Saved: saved, Memory: mem}))
	s.paused(clone, true)
	s.resumeNow(clone)
	s.asBefore(clone, "adopted")
	saved, _ = s.rest(clone)
	own := s.readopt(s.restart(spec, vmm.Restore{Saved: saved}))
	s.asBefore(own, "adopted")
	saved, mem = s.rest(own)
	m = s.restore(spec, vmm.Restore{Saved: saved, Memory: mem, Own: true})
	m = s.readopt(m) // whoever has it now may let it run
	if _, err := mem.Store(s.within(soon), filepath.Join(s.TempDir(), "memory")); err == nil {
		s.Error("a memory that another process' machine has was stored")
	}
	s.resumeNow(m)
	s.asBefore(m, "adopted")
}
