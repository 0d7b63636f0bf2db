package vmmtest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// Harness is what the suite needs of a driver under test.
type Harness struct {
	Driver vmm.Driver

	// NewSpec returns the recipe of a machine with a network card, whose guest is
	// a Guest, in an empty folder of its own.
	NewSpec func(t *testing.T) vmm.Spec

	// Lose makes this process forget a machine, as its death would, and returns the
	// driver of the next process.
	Lose func(t *testing.T, m vmm.Machine) vmm.Driver

	// Strike ends the VMM of a running machine from outside.
	Strike func(t *testing.T, m vmm.Machine)

	// Files says that the driver reads the files that a Spec names, and that guests
	// have the disks in it.
	Files bool

	// Keeps is in the names of files that the driver keeps open for later machines.
	Keeps string

	// Patience is how long a guest may take to answer after a start.
	Patience time.Duration
}

const (
	// soon is the limit for what the contract calls "at once". It is generous: it
	// must hold on a busy machine, and only tell events from timeouts.
	soon = 10 * time.Second
	// quiet is how long nothing must happen where nothing may.
	quiet = 300 * time.Millisecond
)

// Run runs the suite. It calls open for each test.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	t.Helper()
	for _, test := range []struct {
		name string
		run  func(*suite)
	}{
		{"Info", (*suite).info},
		{"StartAndKill", (*suite).startAndKill},
		{"EndedErrors", (*suite).endedErrors},
		{"StartCanceled", (*suite).startCanceled},
		{"StartFails", (*suite).startFails},
		{"StartTwice", (*suite).startTwice},
		{"StartUnsupported", (*suite).startUnsupported},
		{"Pause", (*suite).pause},
		{"PauseTogether", (*suite).pauseTogether},
		{"Dial", (*suite).dial},
		{"Redial", (*suite).redial},
		{"DialEnds", (*suite).dialEnds},
		{"Network", (*suite).network},
		{"Adopt", (*suite).adopt},
		{"AdoptPaused", (*suite).adoptPaused},
		{"AdoptTwice", (*suite).adoptTwice},
		{"AdoptEnded", (*suite).adoptEnded},
		{"PowerOff", func(s *suite) { s.guestEnds(PowerOff, vmm.PoweredOff) }},
		{"Panic", func(s *suite) { s.guestEnds(Panic, vmm.Panicked) }},
		{"Reboot", func(s *suite) { s.guestEnds(Reboot, vmm.PoweredOff) }},
		{"Died", (*suite).died},
		{"Flood", (*suite).flood},
		{"Save", (*suite).save},
		{"SaveCycles", (*suite).saveCycles},
		{"SaveBusy", (*suite).saveBusy},
		{"SaveRefused", (*suite).saveRefused},
		{"SaveCanceled", (*suite).saveCanceled},
		{"SaveDied", (*suite).saveDied},
		{"Clones", (*suite).clones},
		{"Memory", (*suite).memory},
		{"RestoreStale", (*suite).restoreStale},
		{"RestoreDamaged", (*suite).restoreDamaged},
		{"RestoreCanceled", (*suite).restoreCanceled},
		{"AdoptRestored", (*suite).adoptRestored},
		{"CopyMemory", (*suite).copied},
		{"ForkDisk", (*suite).forkDisk},
		{"ForkRefused", (*suite).forkRefused},
		{"Many", (*suite).many},
	} {
		t.Run(test.name, func(t *testing.T) {
			leaks := goleak.IgnoreCurrent()
			s := &suite{T: t, h: open(t)}
			t.Cleanup(func() {
				s.killAll()
				goleak.VerifyNone(t, leaks)
			})
			files := openFiles()
			test.run(s)
			s.killAll()
			s.sameFiles(files)
		})
	}
}

// suite is one test of the suite.
type suite struct {
	*testing.T
	h Harness

	mu      sync.Mutex
	started []started
	conns   []net.Conn
	held    []vmm.Memory
}

type started struct {
	spec vmm.Spec
	m    vmm.Machine
}

// killAll ends what the test has started and checks that nothing is left.
func (s *suite) killAll() {
	s.Helper()
	s.mu.Lock()
	all := s.started
	s.started = nil
	for _, c := range s.conns {
		_ = c.Close()
	}
	for _, m := range s.held {
		_ = m.Close()
	}
	s.conns, s.held = nil, nil
	s.mu.Unlock()
	for _, st := range all {
		if err := st.m.Kill(s.within(soon)); err != nil {
			s.Errorf("kill %s: %v", st.spec.ID, err)
		}
		s.empty(st.spec.Dir)
	}
}

func (s *suite) within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	s.Cleanup(cancel)
	return ctx
}

func (s *suite) start() (vmm.Machine, vmm.Spec) {
	s.Helper()
	spec := s.h.NewSpec(s.T)
	return s.startSpec(spec), spec
}

func (s *suite) startSpec(spec vmm.Spec) vmm.Machine {
	s.Helper()
	m, err := s.h.Driver.Start(s.within(s.h.Patience), spec, vmm.Boot{})
	if err != nil {
		s.Fatalf("start: %v (hint %q)", err, fault.HintOf(err))
	}
	s.own(spec, m)
	return m
}

// own makes the test end m.
func (s *suite) own(spec vmm.Spec, m vmm.Machine) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.started = append(s.started, started{spec, m})
}

// disown says that a machine is another's.
func (s *suite) disown(m vmm.Machine) vmm.Spec {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, st := range s.started {
		if st.m == m {
			s.started = append(s.started[:i], s.started[i+1:]...)
			return st.spec
		}
	}
	return vmm.Spec{}
}

func (s *suite) dialGuest(m vmm.Machine) net.Conn {
	s.Helper()
	conn, err := m.DialGuest(s.within(soon))
	if err != nil {
		s.Fatalf("dial the guest: %v", err)
	}
	return conn
}

// echoes tells whether the guest answers on conn within d. It may see bytes of
// earlier connections first.
func (s *suite) echoes(conn net.Conn, d time.Duration) bool {
	s.Helper()
	mark := fmt.Appendf(nil, "<%d>", time.Now().UnixNano())
	end := time.Now().Add(d)
	var seen []byte
	buf := make([]byte, 4096)
	for time.Now().Before(end) {
		if err := conn.SetDeadline(time.Now().Add(min(100*time.Millisecond, time.Until(end)))); err != nil {
			s.Fatalf("deadline: %v", err)
		}
		if _, err := conn.Write(mark); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			s.Fatalf("write to the guest: %v", err)
		}
		n, err := conn.Read(buf)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			s.Fatalf("read from the guest: %v", err)
		}
		if seen = append(seen, buf[:n]...); bytes.Contains(seen, mark) {
			return true
		}
	}
	return false
}

// answers fails the test unless the guest answers.
func (s *suite) answers(m vmm.Machine) {
	s.Helper()
	conn := s.dialGuest(m)
	defer conn.Close() //nolint:errcheck // the test is about something else
	if !s.echoes(conn, s.h.Patience) {
		s.Fatal("the guest does not answer")
	}
}

// tell gives the guest an order.
func (s *suite) tell(m vmm.Machine, w Word) {
	s.Helper()
	conn := s.dialGuest(m)
	s.mu.Lock()
	s.conns = append(s.conns, conn) // closing before the guest has read may lose the word
	s.mu.Unlock()
	if !s.echoes(conn, s.h.Patience) {
		s.Fatal("the guest does not answer")
	}
	_ = conn.SetDeadline(time.Time{})
	if _, err := conn.Write([]byte(w)); err != nil {
		s.Fatalf("tell the guest: %v", err)
	}
}

// exit waits for a machine to end by itself.
func (s *suite) exit(m vmm.Machine, d time.Duration) vmm.Exit {
	s.Helper()
	e, err := m.Wait(s.within(d))
	if err != nil {
		s.Fatalf("wait: %v", err)
	}
	return e
}

// atOnce runs f and fails if it takes long. f may get a context without an end.
func (s *suite) atOnce(what string, f func() error) error {
	s.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-time.After(soon):
		s.Fatalf("%s does not return", what)
		return nil
	}
}

// empty checks that nothing but logs is in a machine's folder.
func (s *suite) empty(dir string) {
	s.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		s.Errorf("folder: %v", err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".log") {
			s.Errorf("%s is left in the machine's folder", e.Name())
		}
	}
}

// openFiles returns what this process has open, or nil where the system does not
// tell.
func openFiles() map[string]string {
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		return nil
	}
	open := map[string]string{}
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil {
			open[l] = to
		}
	}
	return open
}

// sameFiles checks that nothing more is open than before. What a process that lost
// a machine still holds goes moments after the machine.
func (s *suite) sameFiles(before map[string]string) {
	s.Helper()
	var left []string
	for end := time.Now().Add(soon); time.Now().Before(end); <-time.After(quiet / 10) {
		left = nil
		for fd, to := range openFiles() {
			// The runtime opens its own when it first needs them.
			kept := s.h.Keeps != "" && strings.Contains(to, s.h.Keeps)
			if before[fd] == "" && !kept && !strings.HasPrefix(to, "anon_inode:[event") {
				left = append(left, to)
			}
		}
		if len(left) == 0 {
			return
		}
	}
	s.Errorf("descriptors are left open: %v", left)
}

// frame reads one Ethernet frame.
func frame(r io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n < 14 || n > 1<<17 {
		return nil, fmt.Errorf("frame of %d bytes", n)
	}
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	return b, err
}
