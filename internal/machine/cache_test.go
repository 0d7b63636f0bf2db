package machine

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// TestCacheLetsTheOldestGo, but none that is in use.
func TestCacheLetsTheOldestGo(t *testing.T) {
	s := newStage(t)
	specs := sized(maxLoaded + 2)
	held, err := s.Prepare(t.Context(), instance.NewID(), specs[0], guestproto.NewMagic(), false)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range specs[1:] {
		s.cloneOf(t, s.Ground, want)
		s.work.Wait() // what is not written yet stays in memory too
	}
	s.cloneOf(t, s.Ground, specs[len(specs)-1])
	if n := len(s.cache.entries); n != maxLoaded {
		t.Errorf("%d templates are in memory", n)
	}
	s.start(t, held)
	// Those that went are loaded, not made.
	for _, want := range specs {
		s.cloneOf(t, s.Ground, want)
	}
	s.made(t, int32(len(specs)))
	for name, e := range s.cache.entries {
		if e.users != 0 || !e.isReady() {
			t.Errorf("%s: %d users, ready %v", name, e.users, e.isReady())
		}
	}
}

// slowMemory is a Memory whose Store waits.
type slowMemory struct {
	vmm.Memory
	stored, goOn chan struct{}
}

func (m slowMemory) Store(ctx context.Context, path string) (vmm.File, error) {
	close(m.stored)
	<-m.goOn
	return m.Memory.Store(ctx, path)
}

// slowSaver is a Driver whose first machine's memory is slow to write.
type slowSaver struct {
	vmm.Driver
	vmm.MemoryLoader
	memory slowMemory
}

type slowMachine struct {
	vmm.Machine
	memory slowMemory
}

func (d slowSaver) Start(ctx context.Context, spec vmm.Spec, src vmm.Source) (vmm.Machine, error) {
	m, err := d.Driver.Start(ctx, spec, src)
	return slowMachine{m, d.memory}, err
}

func (m slowMachine) Save(ctx context.Context, dest vmm.Dest) (vmm.Saved, vmm.Memory, error) {
	s, mem, err := m.Machine.(vmm.Saver).Save(ctx, dest)
	m.memory.Memory = mem
	return s, m.memory, err
}

func TestCloseWaitsForTheWriting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		slow := slowMemory{stored: make(chan struct{}), goOn: make(chan struct{})}
		d := s.host.Driver()
		s.driver = slowSaver{d, d, slow}
		s.cloneOf(t, s.Ground, spec())
		<-slow.stored
		closed := make(chan error, 1)
		go func() { closed <- s.Close() }()
		synctest.Wait()
		if len(closed) != 0 {
			t.Error("Close does not wait")
		}
		close(slow.goOn)
		if err := <-closed; err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(s.only(t), manifestName)); err != nil {
			t.Error(err)
		}
	})
}

// TestCollect: the templates on disk that were not used for longest go.
func TestCollect(t *testing.T) {
	s := newStage(t)
	s.linker.block = func(context.Context) { <-s.begun } // all templates remember something: they are of one size
	specs := sized(4)
	var names []string // by age, oldest first
	for i, want := range specs[:3] {
		s.cloneOf(t, s.Ground, want)
		s.work.Wait()
		for _, dir := range s.folders(t) {
			if !slices.Contains(names, dir) {
				names = append(names, dir)
			}
		}
		then := time.Now().Add(time.Duration(i-10) * time.Hour)
		if err := os.Chtimes(filepath.Join(names[i], manifestName), then, then); err != nil {
			t.Fatal(err)
		}
	}
	half := filepath.Join(s.home.Templates(), "half") // being made
	if err := os.Mkdir(half, 0o700); err != nil {
		t.Fatal(err)
	}
	one, err := occupied(names[0])
	if err != nil {
		t.Fatal(err)
	}
	// Those in memory stay, whatever the quota: clones need their files.
	s.quota = 0
	if err := s.collect(); err != nil || len(s.folders(t)) != 4 {
		t.Errorf("templates %v, %v", s.folders(t), err)
	}
	g := s.reborn(t)
	g.quota = 3*one + one/2
	s.cloneOf(t, g, specs[0]) // loads the oldest: it is the newest now
	s.cloneOf(t, g, specs[3])
	g.work.Wait()
	left := s.folders(t)
	for dir, want := range map[string]bool{names[0]: true, names[1]: false, names[2]: true, half: true} {
		if slices.Contains(left, dir) != want {
			t.Errorf("%s is there: %v", filepath.Base(dir), !want)
		}
	}
	s.made(t, 4)
	// It was not in use: the next who wants it makes it.
	s.cloneOf(t, g, specs[1])
	s.made(t, 5)
}
