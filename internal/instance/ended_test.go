package instance

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// TestEndSeenByTheLinkFirst ends a machine so that the link knows it before the one
// who watches the machine: the error must be the machine's, not the link's.
func TestEndSeenByTheLinkFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStubWorld()
		w.runs, w.dieAfter, w.late = time.Minute, 5*time.Second, 50*time.Millisecond
		s := NewSet(w.world())
		r, err := s.Run(t.Context(), Spec{Command: []string{"true"}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.Recv()
		if err == nil || !strings.Contains(err.Error(), "out of luck") || fault.HintOf(err) == "" {
			t.Errorf("Recv = %v", err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		checkNothingLeft(t, w, s)
		if err := s.Close(t.Context(), StopAll); err != nil {
			t.Error(err)
		}
	})
}

// TestTrouble lets the host fail the guest: whoever reads the status has been told.
func TestTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStubWorld()
		w.trouble = fault.New(fault.Exhausted, "no room").By(fault.Host).WithHint("make some")
		s := NewSet(w.world())
		r, err := s.Run(t.Context(), Spec{Command: []string{"true"}})
		if err != nil {
			t.Fatal(err)
		}
		f, err := r.Recv()
		if err != nil || f.Type != frame.Notice || !strings.Contains(string(f.Payload), "no room") {
			t.Errorf("first frame: %d, %q, %v", f.Type, f.Payload, err)
		}
		f, err = r.Recv()
		if status, statusErr := f.Status(); err != nil || statusErr != nil || status != 7 {
			t.Errorf("second frame: %d, %v, %v", status, err, statusErr)
		}
		if _, err := r.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("after the end: %v", err)
		}
		if err := errors.Join(r.Close(), s.Close(t.Context(), StopAll)); err != nil {
			t.Error(err)
		}
		checkNothingLeft(t, w, s)
	})
}

// TestTroubleOfInstance lets the host fail an instance that stays: its log and its view
// tell, and so does each command that ends in it.
func TestTroubleOfInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStubWorld()
		w.runs = time.Minute
		w.trouble = fault.New(fault.Exhausted, "no room").By(fault.Host).WithHint("make some")
		s := NewSet(w.world())
		v := create(t, s, "web")
		x, err := s.Exec(t.Context(), "web", ExecSpec{Command: []string{"dd"}})
		if err != nil {
			t.Fatal(err)
		}
		const hint = "make some; then: aegis instance restart web"
		f, err := x.Recv()
		if err != nil || f.Type != frame.Notice || !strings.Contains(string(f.Payload), hint) {
			t.Errorf("first frame: %d, %q, %v", f.Type, f.Payload, err)
		}
		f, err = x.Recv()
		if status, statusErr := f.Status(); err != nil || statusErr != nil || status != 7 {
			t.Errorf("second frame: %d, %v, %v", status, err, statusErr)
		}
		if log, want := w.logs[v.ID].String(), "[system] no room; "+hint+"\n"; !strings.HasPrefix(log, want) || strings.Count(log, want) != 1 {
			t.Errorf("log = %q", log)
		}
		if err := errors.Join(x.Close(), s.Start(t.Context(), "web")); err != nil {
			t.Error(err)
		}
		if v, err := s.Get("web"); err != nil || v.Trouble() == nil || fault.HintOf(v.Trouble()) != hint {
			t.Errorf("trouble of %v: %v, %v", v.State, v.Trouble(), err)
		}
		if err := s.Stop(t.Context(), "web"); err != nil {
			t.Error(err)
		}
		if v, err := s.Get("web"); err != nil || v.Trouble() != nil {
			t.Errorf("trouble without a machine: %v, %v", v.Trouble(), err)
		}
		if err := s.Close(t.Context(), StopAll); err != nil {
			t.Error(err)
		}
	})
}

func TestExitFault(t *testing.T) {
	for _, test := range []struct {
		exit  vmm.Exit
		msg   string
		hint  string
		blame fault.Blame
		ended bool
	}{
		{vmm.Exit{Reason: vmm.Panicked, Detail: "Kernel panic - not syncing: x"}, "kernel stopped: Kernel panic", "aegisd.log", fault.Guest, false},
		{vmm.Exit{Reason: vmm.Panicked, Detail: "Kernel panic - not syncing: Attempted to kill init! exitcode=0x2"}, "AegisVM's own process", "aegisd.log", fault.Guest, false},
		{vmm.Exit{Reason: vmm.Panicked, Detail: "Kernel panic - not syncing: Out of memory and no killable processes"}, "kernel stopped", "--memory", fault.Guest, false},
		{vmm.Exit{Reason: vmm.Panicked, Detail: "Kernel panic - not syncing: No working init found."}, "found no program", "initrd-*", fault.Host, false},
		{vmm.Exit{Reason: vmm.Panicked}, "no reason given", "aegisd.log", fault.Guest, false},
		{vmm.Exit{Reason: vmm.Died, Detail: "signal 9"}, "signal 9", "aegis doctor", fault.Driver, false},
		{vmm.Exit{Reason: vmm.PoweredOff}, "turned itself off", "powered the VM off", fault.Program, true},
		{vmm.Exit{Reason: vmm.Killed}, "the VM was stopped", "", "", true},
	} {
		err := exitFault(test.exit)
		if !strings.Contains(err.Error(), test.msg) || !strings.Contains(fault.HintOf(err), test.hint) ||
			fault.BlameOf(err) != test.blame || errors.Is(err, ErrEnded) != test.ended {
			t.Errorf("%v: %v (%s; %s)", test.exit, err, fault.BlameOf(err), fault.HintOf(err))
		}
	}
}

// TestEndOfAnEarlierProgram: that a program has ended is told apart, and may be heard when the
// next machine is being started already. That is none of that machine's.
func TestEndOfAnEarlierProgram(t *testing.T) {
	earlier, starting := newLive(), newLive()
	close(earlier.gone)
	for name, c := range map[string]struct {
		state State
		live  *live // of the actor
		of    *live // of the program
		want  EventKind
	}{
		"running":             {Running, starting, starting, Exited},
		"while it starts":     {Booting, nil, starting, Exited},
		"earlier, starting":   {Booting, nil, earlier, Abandon},
		"earlier, running":    {Running, starting, earlier, Abandon},
		"earlier, and asleep": {Stopped, nil, earlier, Abandon},
	} {
		a := &actor{live: c.live, snap: Snap{State: c.state}}
		if got := a.programEnded(programExit{live: c.of}); got != c.want {
			t.Errorf("%s: %v, not %v", name, got, c.want)
		}
	}
}
