package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// fresh plans a clone for a new instance.
func (s *stage) fresh(t *testing.T) instance.Plan {
	t.Helper()
	return s.plan(t, instance.NewID(), false)
}

// TestStateThatIsChanged: what is on disk of a template changes under the daemon. The
// start that meets it tells, and the next ones have a new template.
func TestStateThatIsChanged(t *testing.T) {
	s := newStage(t)
	plan := s.fresh(t)
	state := filepath.Join(s.only(t), "state")
	if err := os.WriteFile(state, []byte("#"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := s.driver.Start(t.Context(), plan.Recipe, plan.Source)
	if !errors.Is(err, vmm.ErrDamaged) {
		t.Fatalf("the start ended with %v", err)
	}
	plan.Failed(fmt.Errorf("start: %w", err))
	plan.Release()
	next := s.fresh(t)
	s.made(t, 2)
	if next.Magic == plan.Magic {
		t.Error("the template is the same")
	}
	s.start(t, next)
	// Who met the old one tells later.
	plan.Failed(err)
	s.start(t, s.fresh(t))
	s.made(t, 2)
}

// TestFailuresThatSayNothingOfTheTemplate leave it in use.
func TestFailuresThatSayNothingOfTheTemplate(t *testing.T) {
	s := newStage(t)
	plan := s.fresh(t)
	plan.Failed(errInjected)
	plan.Release()
	s.start(t, s.fresh(t))
	s.made(t, 1)
}

// TestDiskThatIsChanged: a clone never has a disk that is not the template's.
func TestDiskThatIsChanged(t *testing.T) {
	s := newStage(t)
	plan := s.fresh(t)
	plan.Release()
	s.work.Wait()
	if err := os.WriteFile(filepath.Join(s.only(t), diskImageName), []byte("#"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.fails(t, vmm.ErrDamaged)
	s.start(t, s.fresh(t))
	s.made(t, 2)
}

// TestSpoiltWhileItIsWritten: nobody finds what is still being written of a template that
// was dropped.
func TestSpoiltWhileItIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		slow := slowMemory{stored: make(chan struct{}), goOn: make(chan struct{})}
		d := s.host.Driver()
		s.driver = slowSaver{d, d, slow}
		plan := s.fresh(t)
		<-slow.stored
		s.driver = d
		plan.Failed(vmm.ErrDamaged)
		plan.Release()
		next := make(chan instance.Plan, 1)
		go func() {
			p, err := s.Prepare(t.Context(), instance.NewID(), spec(), guestproto.NewMagic(), false)
			if err != nil {
				t.Error(err)
			}
			next <- p
		}()
		synctest.Wait()
		if len(next) != 0 {
			t.Error("the next start does not wait")
		}
		close(slow.goOn)
		if p := <-next; p.Magic == plan.Magic {
			t.Error("the template is the same")
		}
		s.made(t, 2)
	})
}

// TestWantedWhileItIsCollected: a start that wants a template which is just being removed
// for room waits, and makes it anew. It never meets half of one.
func TestWantedWhileItIsCollected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.fresh(t).Release()
		g := s.reborn(t) // nothing is in memory
		removing, goOn := make(chan struct{}), make(chan struct{})
		g.quota = 0
		g.remove = func(path string) error {
			close(removing)
			<-goOn
			return os.RemoveAll(path)
		}
		collected := make(chan error, 1)
		go func() { collected <- g.collect() }()
		<-removing
		wanted := make(chan error, 1)
		go func() {
			p, err := g.Prepare(t.Context(), instance.NewID(), spec(), guestproto.NewMagic(), false)
			if err == nil {
				s.start(t, p)
			}
			wanted <- err
		}()
		synctest.Wait()
		if len(wanted) != 0 {
			t.Error("the start does not wait")
		}
		time.Sleep(time.Second) // of the bubble
		close(goOn)
		if err := errors.Join(<-collected, <-wanted); err != nil {
			t.Fatal(err)
		}
		s.made(t, 2)
	})
}
