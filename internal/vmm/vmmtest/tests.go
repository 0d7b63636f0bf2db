package vmmtest

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

func (s *suite) info() {
	i := s.h.Driver.Info()
	if i.Name == "" || i.Version == "" || i.Accel == "" || i.Isolation == "" || i.Why == "" {
		s.Errorf("incomplete: %+v", i)
	}
	m, _ := s.start()
	if _, ok := m.(vmm.Saver); i.Abilities.Save && !ok {
		s.Error("says it saves, but is no Saver")
	}
	if _, ok := m.(vmm.DiskForker); i.Abilities.Fork && !ok {
		s.Error("says it forks, but is no DiskForker")
	}
}

func (s *suite) startAndKill() {
	m, spec := s.start()
	s.answers(m)
	if u, err := m.Usage(); err != nil || u.Memory <= 0 {
		s.Errorf("Usage = %+v, %v", u, err)
	}
	cause := errors.New("enough waited")
	ctx, cancel := context.WithTimeoutCause(context.Background(), quiet, cause)
	defer cancel()
	if _, err := m.Wait(ctx); !errors.Is(err, cause) {
		s.Errorf("Wait returned %v, not its context's cause", err)
	}
	var waiters sync.WaitGroup
	for range 8 {
		waiters.Go(func() {
			if e, err := m.Wait(s.within(s.h.Patience)); err != nil || e.Reason != vmm.Killed {
				s.Errorf("Wait = %v, %v", e, err)
			}
		})
	}
	for range 2 {
		waiters.Go(func() {
			if err := m.Kill(s.within(soon)); err != nil {
				s.Errorf("Kill: %v", err)
			}
			s.empty(spec.Dir)
		})
	}
	waiters.Wait()
	if err := m.Kill(s.within(soon)); err != nil {
		s.Errorf("Kill after the end: %v", err)
	}
}

func (s *suite) endedErrors() {
	m, _ := s.start()
	if err := m.Kill(s.within(soon)); err != nil {
		s.Fatal(err)
	}
	ctx := context.Background()
	for what, call := range map[string]func() error{
		"Pause":         func() error { return m.Pause(ctx) },
		"Resume":        func() error { return m.Resume(ctx) },
		"DialGuest":     func() error { _, err := m.DialGuest(ctx); return err },
		"AttachNetwork": func() error { _, err := m.AttachNetwork(ctx); return err },
		"Paused":        func() error { _, err := m.Paused(ctx); return err },
		"Usage":         func() error { _, err := m.Usage(); return err },
		"Save": func() error {
			if sv, ok := m.(vmm.Saver); ok {
				_, _, err := sv.Save(ctx, vmm.Dest{Dir: s.TempDir()})
				return err
			}
			return vmm.ErrEnded
		},
	} {
		if err := s.atOnce(what, call); !errors.Is(err, vmm.ErrEnded) {
			s.Errorf("%s after the end: %v, not ErrEnded", what, err)
		}
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if e, err := m.Wait(gone); err != nil || e.Reason != vmm.Killed {
		s.Errorf("Wait after the end with a context that has ended: %v, %v", e, err)
	}
}

func (s *suite) startCanceled() {
	cause := errors.New("changed my mind")
	for _, after := range []time.Duration{0, time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond, 40 * time.Millisecond, 80 * time.Millisecond} {
		spec := s.h.NewSpec(s.T)
		ctx, cancel := context.WithCancelCause(context.Background())
		timer := time.AfterFunc(after, func() { cancel(cause) })
		if after == 0 {
			cancel(cause)
		}
		m, err := s.h.Driver.Start(ctx, spec, vmm.Boot{})
		timer.Stop()
		switch {
		case err == nil && after == 0:
			s.Error("Start succeeded though its context had ended")
			s.own(spec, m)
		case err == nil:
			s.own(spec, m) // it was faster
		case !errors.Is(err, cause):
			s.Errorf("Start canceled after %v: %v, not its context's cause", after, err)
		}
		if err != nil {
			s.empty(spec.Dir)
		}
		cancel(nil)
		// A context bounds a call, never a machine.
		if err == nil {
			s.answers(m)
		}
	}
}

func (s *suite) startFails() {
	if !s.h.Files {
		s.Skip("the driver reads no files")
	}
	garbage := filepath.Join(s.TempDir(), "garbage")
	if err := os.WriteFile(garbage, []byte(strings.Repeat("not a kernel ", 1000)), 0o600); err != nil {
		s.Fatal(err)
	}
	missing := filepath.Join(s.TempDir(), "missing")
	for name, change := range map[string]func(*vmm.Spec){
		"kernel missing": func(sp *vmm.Spec) { sp.Kernel = missing },
		"kernel garbage": func(sp *vmm.Spec) { sp.Kernel = garbage },
		"initrd missing": func(sp *vmm.Spec) { sp.Initrd = missing },
		"disk missing":   func(sp *vmm.Spec) { sp.Disks = []vmm.Disk{{Name: "disk", Path: missing, Format: vmm.Raw}} },
		"disk twice": func(sp *vmm.Spec) {
			d := vmm.Disk{Name: "disk", Path: garbage, Format: vmm.Raw, ReadOnly: true}
			sp.Disks = []vmm.Disk{d, d}
		},
		"too much memory": func(sp *vmm.Spec) { sp.Memory = 1 << 46 },
		"folder missing":  func(sp *vmm.Spec) { sp.Dir = missing },
	} {
		spec := s.h.NewSpec(s.T)
		dir := spec.Dir
		change(&spec)
		m, err := s.h.Driver.Start(s.within(s.h.Patience), spec, vmm.Boot{})
		if err == nil {
			s.Errorf("%s: the machine starts", name)
			s.own(spec, m)
			continue
		}
		if name != "disk twice" && name != "folder missing" && (fault.BlameOf(err) == "" || fault.HintOf(err) == "") {
			s.Errorf("%s: no blame or no hint in %#v", name, err)
		}
		s.Logf("%s: %v [%s; %s]", name, err, fault.BlameOf(err), fault.HintOf(err))
		s.empty(dir)
	}
}

func (s *suite) startTwice() {
	m, spec := s.start()
	if _, err := s.h.Driver.Start(s.within(soon), spec, vmm.Boot{}); err == nil {
		s.Fatal("two machines started in one folder")
	}
	s.answers(m)
}

func (s *suite) startUnsupported() {
	if s.h.Driver.Info().Abilities.Save {
		s.Skip("the driver starts from saved machines")
	}
	spec := s.h.NewSpec(s.T)
	if _, err := s.h.Driver.Start(s.within(soon), spec, vmm.Restore{}); !errors.Is(err, errors.ErrUnsupported) {
		s.Errorf("Start from a saved machine: %v, not ErrUnsupported", err)
	}
	s.empty(spec.Dir)
}

func (s *suite) pause() {
	m, _ := s.start()
	s.answers(m)
	conn := s.dialGuest(m)
	defer conn.Close() //nolint:errcheck // the test is about something else
	for range 2 {
		for range 2 {
			if err := m.Pause(s.within(soon)); err != nil {
				s.Fatalf("pause: %v", err)
			}
		}
		s.paused(m, true)
		if s.echoes(conn, quiet) {
			s.Error("a paused guest answers")
		}
		for range 2 {
			if err := m.Resume(s.within(soon)); err != nil {
				s.Fatalf("resume: %v", err)
			}
		}
		s.paused(m, false)
		if !s.echoes(conn, s.h.Patience) {
			s.Error("a resumed guest does not answer")
		}
	}
	cause := errors.New("changed my mind")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(cause)
	if err := m.Pause(ctx); !errors.Is(err, cause) {
		s.Errorf("Pause with a context that has ended: %v, not its cause", err)
	}
	s.paused(m, false)
	if !s.echoes(conn, s.h.Patience) {
		s.Error("a guest that was not paused does not answer")
	}
	if err := m.Pause(s.within(soon)); err != nil {
		s.Fatal(err)
	}
	if err := s.atOnce("Kill of a paused machine", func() error { return m.Kill(s.within(soon)) }); err != nil {
		s.Error(err)
	}
}

func (s *suite) paused(m vmm.Machine, want bool) {
	s.Helper()
	if is, err := m.Paused(s.within(soon)); err != nil || is != want {
		s.Errorf("Paused = %v, %v, want %v", is, err, want)
	}
}

func (s *suite) pauseTogether() {
	m, _ := s.start()
	var calls sync.WaitGroup
	for range 4 {
		calls.Go(func() {
			for range 5 {
				if err := errors.Join(m.Pause(s.within(soon)), m.Resume(s.within(soon))); err != nil {
					s.Error(err)
				}
			}
		})
	}
	calls.Wait()
	if err := m.Resume(s.within(soon)); err != nil {
		s.Fatal(err)
	}
	s.answers(m)
}

func (s *suite) dial() {
	m, _ := s.start()
	s.oneAtATime(m.DialGuest)
	s.answers(m)
}

// oneAtATime checks that a second connection waits for the first.
func (s *suite) oneAtATime(dial func(context.Context) (net.Conn, error)) {
	s.Helper()
	first, err := dial(s.within(soon))
	if err != nil {
		s.Fatal(err)
	}
	cause := errors.New("tired of waiting")
	ctx, cancel := context.WithTimeoutCause(context.Background(), quiet, cause)
	defer cancel()
	if _, err := dial(ctx); !errors.Is(err, cause) {
		s.Errorf("second connection: %v, not its context's cause", err)
	}
	second := make(chan net.Conn, 1)
	go func() {
		conn, err := dial(s.within(soon))
		if err != nil {
			s.Errorf("second connection: %v", err)
		}
		second <- conn
	}()
	select {
	case <-second:
		s.Error("two connections at a time")
	case <-time.After(quiet):
	}
	if err := first.Close(); err != nil {
		s.Error(err)
	}
	_ = first.Close() // gives back only once
	if conn := <-second; conn != nil {
		_ = conn.Close()
	}
}

func (s *suite) redial() {
	m, _ := s.start()
	s.answers(m)
	for range 20 {
		conn := s.dialGuest(m)
		_, _ = conn.Write([]byte("left behind"))
		_ = conn.Close()
	}
	s.answers(m)
}

func (s *suite) dialEnds() {
	m, _ := s.start()
	s.answers(m)
	conn := s.dialGuest(m)
	defer conn.Close() //nolint:errcheck // the test is about something else
	waiting := make(chan error, 1)
	go func() {
		_, err := m.DialGuest(context.Background())
		waiting <- err
	}()
	reading := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, conn)
		reading <- err
	}()
	select {
	case err := <-waiting:
		s.Fatalf("second connection: %v", err)
	case err := <-reading:
		s.Fatalf("first connection ends: %v", err)
	case <-time.After(quiet):
	}
	if err := m.Kill(s.within(soon)); err != nil {
		s.Fatal(err)
	}
	if err := s.atOnce("DialGuest in progress", func() error { return <-waiting }); !errors.Is(err, vmm.ErrEnded) {
		s.Errorf("DialGuest in progress: %v, not ErrEnded", err)
	}
	_ = s.atOnce("a read from the guest", func() error { return <-reading })
}

func (s *suite) network() {
	m, _ := s.start()
	s.oneAtATime(m.AttachNetwork)
	for range 2 {
		conn, err := m.AttachNetwork(s.within(soon))
		if err != nil {
			s.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(s.h.Patience))
		if _, err := frame(conn); err != nil {
			s.Errorf("no frame from the guest: %v", err)
		}
		_ = conn.Close()
	}
	spec := s.h.NewSpec(s.T)
	spec.Network = false
	if _, err := s.startSpec(spec).AttachNetwork(s.within(soon)); err == nil {
		s.Error("a machine without a network card has one")
	}
}

func (s *suite) many() {
	const n = 4
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			spec := s.h.NewSpec(s.T)
			m, err := s.h.Driver.Start(s.within(s.h.Patience), spec, vmm.Boot{})
			if err != nil {
				s.Errorf("start: %v", err)
				return
			}
			s.own(spec, m)
			conn, err := m.DialGuest(s.within(soon))
			if err != nil {
				s.Errorf("dial: %v", err)
				return
			}
			defer conn.Close() //nolint:errcheck // the test is about something else
			if !s.echoes(conn, s.h.Patience) {
				s.Error("a guest does not answer")
			}
		})
	}
	all.Wait()
}
