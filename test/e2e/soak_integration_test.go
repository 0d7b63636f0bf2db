//go:build integration

package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
	"github.com/xfeldman/aegisvm/internal/fault"
)

// soak is real instances under users who want different things at the same time, of a
// daemon and of VMs that are killed now and then.
type soak struct {
	*host

	rng  *rand.Rand
	mu   sync.Mutex
	done map[string]int // what was done, by what came of it
	bad  []string
}

// chatter is a program that prints numbers as fast as others let it, a hundred at a
// time.
var chatter = []string{"python3", "-uc", `import itertools, time
for i in itertools.count():
    print(i)
    if i % 100 == 99: time.sleep(.05)`}

// TestSoak lets users loose on a few instances, and kills daemons and VMs under them.
// After each round the daemon's list is the truth, and the log of each run of a program
// has every line, in order, once. AEGIS_SOAK is how long it goes on; 40 s if it is
// not set, a quarter of an hour under make stress.
func TestSoak(t *testing.T) {
	length := stress(40*time.Second, 15*time.Minute)
	if v := os.Getenv("AEGIS_SOAK"); v != "" {
		var err error
		if length, err = time.ParseDuration(v); err != nil {
			t.Fatal(err)
		}
	}
	seed := uint64(time.Now().UnixNano())
	s := &soak{host: newHost(t), rng: rand.New(rand.NewPCG(seed, 0)), done: map[string]int{}}
	defer func() { t.Logf("seed %d: %s", seed, s.figures()) }()
	names := []string{"ann", "bob", "cyd"}
	begin, rounds := time.Now(), 0
	for ; time.Since(begin) < length && !t.Failed(); rounds++ {
		s.round(names)
	}
	s.count("rounds", nil, rounds)
	for _, name := range names {
		if _, err := s.client().Delete(t.Context(), name); err != nil && fault.KindOf(err) != fault.NotFound {
			t.Errorf("delete %s: %v", name, err)
		}
	}
	s.clean()
}

// round has users at work for some seconds, and then checks what is left of it.
func (s *soak) round(names []string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
	defer cancel()
	var users sync.WaitGroup
	for i, name := range append(names, names...) { // two users for each
		rng := rand.New(rand.NewPCG(s.rng.Uint64(), uint64(i)))
		users.Go(func() {
			for ctx.Err() == nil {
				s.step(ctx, rng, name)
			}
		})
	}
	s.violence(ctx.Done())
	<-ctx.Done()
	users.Wait()
	s.checkTruth(s.t)
	for _, name := range names {
		s.checkLog(name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.bad) > 0 {
		s.t.Fatalf("%s\n%s", strings.Join(s.bad, "\n"), s.log())
	}
}

// violence kills something in the middle of a round, or nothing.
func (s *soak) violence(over <-chan struct{}) {
	s.t.Helper()
	select {
	case <-time.After(time.Duration(s.rng.IntN(8000)) * time.Millisecond):
	case <-over:
	}
	switch s.rng.IntN(4) {
	case 0:
		s.signal(syscall.SIGKILL)
		s.count("daemon killed", nil, 1)
		s.up()
	case 1:
		s.signal(syscall.SIGTERM)
		s.count("daemon replaced", nil, 1)
		s.up()
	case 2:
		for _, pid := range s.machines() {
			if err := syscall.Kill(pid, syscall.SIGKILL); err == nil || errors.Is(err, syscall.ESRCH) {
				s.count("VM killed", err, 1)
			}
			return
		}
	}
}

// wishes is what users do, as often as they do it.
var wishes = strings.Fields(strings.Repeat("exec exec exec exec pause resume start copy logs ", 3) + "stop stop restart restart disable delete")

// step does one thing that a user does. Refusals are to be expected, defects are not.
func (s *soak) step(ctx context.Context, rng *rand.Rand, name string) {
	c, never := s.client(), int64(0)
	what := wishes[rng.IntN(len(wishes))]
	var err error
	switch what {
	case "start":
		err = failed(c.Start(ctx, name))
	case "stop":
		err = failed(c.Stop(ctx, name))
	case "restart":
		err = failed(c.Restart(ctx, name))
	case "pause":
		err = failed(c.Pause(ctx, name))
	case "resume":
		err = failed(c.Resume(ctx, name))
	case "disable":
		err = failed(c.Disable(ctx, name))
	case "delete":
		err = failed(c.Delete(ctx, name))
	case "exec":
		err = s.echo(ctx, name, rng)
	case "copy":
		err = s.copy(ctx, name, rng)
	case "logs":
		for _, err = range c.Logs(ctx, name, client.LogQuery{Tail: 10}) {
			if err != nil {
				break
			}
		}
	}
	s.count(what, err, 1)
	if fault.KindOf(err) == fault.NotFound {
		_, _, err = c.Create(ctx, api.CreateRequest{Handle: name, Command: chatter, PauseAfterS: &never})
		s.count("create", err, 1)
	}
	if err != nil {
		select { // what is refused now is refused again at once
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// echo runs a command whose output and status are known.
func (s *soak) echo(ctx context.Context, name string, rng *rand.Rand) error {
	want, status := strconv.Itoa(rng.Int()), rng.IntN(100)
	attach, err := s.client().Exec(ctx, name, api.ExecRequest{Command: []string{"sh", "-c", fmt.Sprintf("echo %s; exit %d", want, status)}})
	if err != nil {
		return err
	}
	var out strings.Builder
	got, err := attach.Stream(ctx, client.Streams{Stdout: &out})
	if err != nil {
		return err
	}
	// A stop or a kill of the VM's processes is no lie.
	if got != 143 && got != 137 && (got != status || out.String() != want+"\n") {
		s.defect("exec in %s: status %d, %q; want %d, %s", name, got, out.String(), status, want)
	}
	return nil
}

// copy reads a file that every instance has.
func (s *soak) copy(ctx context.Context, name string, rng *rand.Rand) error {
	d, err := s.client().CopyFrom(ctx, name, "/usr/bin/env")
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }() // only read
	buf := make([]byte, 1+rng.IntN(64<<10))
	for n := 0; ; {
		m, err := d.Read(buf)
		n += m
		if err != nil && err.Error() == "EOF" {
			if n < 10_000 {
				s.defect("copy from %s: %d bytes", name, n)
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (s *soak) defect(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bad = append(s.bad, fmt.Sprintf(format, args...))
}

// count notes what was done, and what came of it. No kind of end is a defect but that
// which AegisVM itself calls one.
func (s *soak) count(what string, err error, n int) {
	came := "ok"
	if err != nil {
		came = "ended by the test"
		if _, ok := errors.AsType[*fault.Error](err); ok {
			came = string(fault.KindOf(err))
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
// run that begins leaves nothing out of the one before but what died with its VM.
func (s *soak) checkLog(name string) {
	s.t.Helper()
	prev, lines, runs := -1, 0, 0
	for line, err := range s.client().Logs(s.t.Context(), name, client.LogQuery{Tail: -1}) {
		if fault.KindOf(err) == fault.NotFound {
			return
		}
		if err != nil {
			s.t.Fatal(err)
		}
		n, err := strconv.Atoi(line.Line)
		switch {
		case line.Source == "system", line.Open:
			continue // a remark, or the last word of a VM that was killed
		case err != nil, n != 0 && n != prev+1:
			s.t.Fatalf("%s: line %q after %d\n%s", name, line.Line, prev, s.log())
		case n == 0:
			runs++
		}
		prev = n
		lines++
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done["lines checked"] += lines
	s.done["runs checked"] += runs
}
