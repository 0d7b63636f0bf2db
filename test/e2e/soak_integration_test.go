//go:build integration

package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/client"
	"github.com/xfeldman/aegisvm/internal/fault"
)

// soak is real instances under users who want different things at the same time, of a
// daemon and of VMs that are killed now and then, of a disk that is full and clocks that jump.
//
// What users do is in soakusers, what happens to them in soakviolence, how the memory of
// guests is watched in soakwitness, and what may be left of it all in soakleaks.
type soak struct {
	*host

	rng     *rand.Rand
	fills   bool       // the disk is this test's own, and may be filled
	memory  *memories  // of the guests, as they were seen
	samples []sample   // of the daemon, one after each round
	jumping sync.Mutex // taken by who sets a guest's clock

	mu   sync.Mutex
	done map[string]int // what was done, by what came of it
	bad  []string
}

// wild are instances to which anything may happen. steady is one that nobody stops, and
// whose VM nobody kills: whatever else happens, its program is the one that it was.
var wild = []string{"ann", "bob", "cyd"}

const steady = "dee"

// TestSoak lets users loose on a few instances, and kills daemons and VMs under them.
// After each round the daemon's list is the truth, the log of each run of a program
// has every line, in order, once, and no guest has gone back to what it was before. In the
// second half the daemon is left alone, and must not grow. At the end nothing is left.
// AEGIS_SOAK is how long it goes on; 40 s if it is not set, a quarter of an hour under make
// stress.
func TestSoak(t *testing.T) {
	length := stress(40*time.Second, 15*time.Minute)
	if v := os.Getenv("AEGIS_SOAK"); v != "" {
		var err error
		if length, err = time.ParseDuration(v); err != nil {
			t.Fatal(err)
		}
	}
	seed := uint64(time.Now().UnixNano())
	s := newSoak(t, seed)
	defer func() { t.Logf("seed %d: %s", seed, s.figures()) }()
	s.warm()
	before := s.leavings()
	begin, rounds := time.Now(), 0
	for ; time.Since(begin) < length && !t.Failed(); rounds++ {
		s.round(time.Since(begin) < length/2)
	}
	s.count("rounds", nil, rounds)
	s.flat()
	s.sweep(nil)
	s.clean()
	s.noneLeft()
	s.compare(before, s.leavings())
}

// newSoak makes a home on a disk of its own, where that can be had.
func newSoak(t *testing.T, seed uint64) *soak {
	t.Helper()
	s := &soak{host: makeHome(t), rng: rand.New(rand.NewPCG(seed, 0)), memory: newMemories(), done: map[string]int{}}
	if s.fills = os.Geteuid() == 0; s.fills {
		data := filepath.Join(s.home, "data")
		mount(t, data, "size=3g")
		// What was linked is hidden now. Empty disks are large files with nothing in them.
		images := filepath.Join(os.Getenv("AEGIS_TEST_HOME"), "data", "images")
		if out, err := exec.CommandContext(t.Context(), "cp", "-a", "--sparse=always", images, data).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	t.Cleanup(s.close)
	s.up()
	return s
}

// round has users at work for some seconds, and then checks what is left of it. rough says
// that the daemon may be killed.
func (s *soak) round(rough bool) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), stress(10*time.Second, 20*time.Second))
	defer cancel()
	var users sync.WaitGroup
	for i, name := range slices.Concat(wild, wild, []string{steady, steady}) { // two users for each
		rng := rand.New(rand.NewPCG(s.rng.Uint64(), uint64(i)))
		users.Go(func() {
			for ctx.Err() == nil {
				s.step(ctx, rng, name)
			}
		})
	}
	s.violence(ctx.Done(), rough)
	<-ctx.Done()
	users.Wait()
	s.checkTruth(s.t)
	s.sweep(append(wild, steady))
	s.checkTruth(s.t)
	for _, name := range append(wild, steady) {
		s.checkLog(name)
	}
	s.adopted()
	s.isSteady()
	s.sample()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.bad) > 0 {
		s.t.Fatalf("%s\n%s", strings.Join(s.bad, "\n"), s.log())
	}
}

// sweep deletes all instances but those of some names, and all snapshots: a user whose time
// was over, or whose daemon died, has left them.
func (s *soak) sweep(but []string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	list, err := s.client().List(ctx, "")
	if err != nil {
		s.t.Fatal(err)
	}
	for _, i := range list {
		if slices.Contains(but, i.Handle) {
			continue
		}
		if _, err := s.client().Delete(ctx, i.ID); err != nil && fault.KindOf(err) != fault.NotFound {
			s.t.Errorf("delete %s: %v", i.Handle, err)
		}
	}
	snapshots, err := s.client().Snapshots(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, snap := range snapshots {
		if _, err := s.client().DeleteSnapshot(ctx, snap.ID); err != nil && fault.KindOf(err) != fault.NotFound {
			s.t.Errorf("delete snapshot %s: %v", snap.Name, err)
		}
	}
}

func (s *soak) defect(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bad = append(s.bad, fmt.Sprintf(format, args...))
}

// errCut is a connection that ended, as those of a VM do that is paused or dies.
var errCut = errors.New("the connection was cut")

// count notes what was done, and what came of it. No kind of end is a defect but that
// which AegisVM itself calls one.
func (s *soak) count(what string, err error, n int) {
	came := "ok"
	if err != nil {
		came = "ended by the test"
		if _, ok := errors.AsType[*fault.Error](err); ok {
			came = string(fault.KindOf(err))
		} else if errors.Is(err, errCut) {
			came = "cut"
		} else if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, syscall.ESRCH) {
			s.defect("%s: %v", what, err)
		}
		if fault.KindOf(err) == fault.Internal && came == string(fault.Internal) {
			s.defect("%s: %v", what, err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done[what+" "+came] += n
}

func (s *soak) figures() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var parts []string
	for _, what := range slices.Sorted(maps.Keys(s.done)) {
		parts = append(parts, fmt.Sprintf("%s %d", what, s.done[what]))
	}
	return strings.Join(parts, ", ")
}

// checkLog reads the log of an instance. Each run of its program counts from 0, and a
// run that begins leaves nothing out of the one before but what died with its VM, or what a
// full disk did not take, which the log owns up to.
func (s *soak) checkLog(name string) {
	s.t.Helper()
	prev, runs, loose := -1, 0, 0
	lines, err := s.numbers(name)
	if err != nil {
		s.t.Fatal(err)
	}
	for i, line := range lines {
		if line == lost {
			loose = 2 // the first may be the end of one whose beginning is lost
			continue
		}
		n, err := strconv.Atoi(line)
		switch {
		case loose > 0 && err == nil && n != 0:
			loose--
		case i+1 < len(lines) && lines[i+1] == lost:
			continue // its end is lost
		case err != nil, n != 0 && n != prev+1:
			s.t.Fatalf("%s: line %q after %d\n%s", name, line, prev, s.log())
		case n == 0:
			runs++
		}
		prev = n
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done["lines checked"] += len(lines)
	s.done["runs checked"] += runs
}

// lost is what numbers says of output that the log says is lost.
const lost = "lost"

// numbers returns what the program of an instance has printed, as its log has it.
func (s *soak) numbers(name string) (lines []string, err error) {
	for line, err := range s.client().Logs(s.t.Context(), name, client.LogQuery{Tail: -1}) {
		switch {
		case fault.KindOf(err) == fault.NotFound:
			return nil, nil
		case err != nil:
			return nil, err
		case line.Source == "system" && strings.Contains(line.Line, "of output were lost here"):
			lines = append(lines, lost)
		case line.Source == "system", line.Open: // a remark, or the last word of a VM that was killed
		default:
			lines = append(lines, line.Line)
		}
	}
	return lines, nil
}
