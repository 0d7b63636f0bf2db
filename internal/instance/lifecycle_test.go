package instance

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
)

func create(t *testing.T, s *Set, handle string) View {
	t.Helper()
	v, err := s.Create(t.Context(), Spec{Handle: handle, Command: []string{"serve"}, PauseAfter: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func wantState(t *testing.T, s *Set, ref string, want State) {
	t.Helper()
	synctest.Wait()
	if v, err := s.Get(ref); err != nil || v.State != want {
		t.Errorf("%s is %v, %v; want %v", ref, v.State, err, want)
	}
}

func TestLifecycle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStubWorld()
		w.runs = 24 * time.Hour
		s := NewSet(w.world())
		v := create(t, s, "web")
		wantState(t, s, "web", Booting)
		if _, err := s.Create(t.Context(), Spec{Handle: "web", Command: []string{"x"}}); fault.KindOf(err) != fault.Conflict {
			t.Errorf("second instance of the name: %v", err)
		}
		for _, step := range []struct {
			name string
			do   func(context.Context, string) error
			want State
		}{
			{"start", s.Start, Running},
			{"pause", s.Pause, Paused},
			{"pause again", s.Pause, Paused},
			{"resume", s.Resume, Running},
			{"restart", s.Restart, Running},
			{"stop", s.Stop, Stopped},
			{"resume starts", s.Resume, Running},
			{"disable", s.Disable, Stopped},
			{"start enables", s.Start, Running},
		} {
			if err := step.do(t.Context(), string(v.ID)); err != nil {
				t.Fatalf("%s: %v", step.name, err)
			}
			wantState(t, s, "web", step.want)
		}
		if err := s.Disable(t.Context(), "web"); err != nil {
			t.Fatal(err)
		}
		if err := s.Resume(t.Context(), "web"); fault.KindOf(err) != fault.Conflict || fault.HintOf(err) == "" {
			t.Errorf("resume of a disabled instance: %v", err)
		}
		if err := s.Pause(t.Context(), "web"); fault.KindOf(err) != fault.Conflict {
			t.Errorf("pause of a stopped instance: %v", err)
		}
		if err := s.Delete(t.Context(), "web"); err != nil {
			t.Fatal(err)
		}
		checkNothingLeft(t, w, s)
		if len(w.records) != 0 {
			t.Error("a deleted instance is remembered")
		}
	})
}

// TestMeetsWhatIsBeingMade has others of the same name come while an instance is made:
// they must take it for one that starts, and not wait for ever if it is not made.
func TestMeetsWhatIsBeingMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStubWorld()
		w.storeErr = fault.New(fault.Exhausted, "no room")
		s := NewSet(w.world())
		made, started := make(chan error), make(chan error)
		go func() {
			_, err := s.Create(t.Context(), Spec{Handle: "web", Command: []string{"serve"}})
			made <- err
		}()
		synctest.Wait()
		if v, err := s.Get("web"); err != nil || v.State != Booting {
			t.Errorf("it is %v, %v", v.State, err)
		}
		go func() { started <- s.Start(t.Context(), "web") }()
		if err := <-made; fault.KindOf(err) != fault.Exhausted {
			t.Errorf("create: %v", err)
		}
		if err := <-started; fault.KindOf(err) != fault.NotFound {
			t.Errorf("start: %v", err)
		}
		checkNothingLeft(t, w, s)
		if err := s.Close(t.Context(), StopAll); err != nil {
			t.Error(err)
		}
	})
}

// TestNamedAsAnID gives one instance the id of another for a name.
func TestNamedAsAnID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStubWorld()
		w.runs = 24 * time.Hour
		s := NewSet(w.world())
		v := create(t, s, "web")
		if _, err := s.Run(t.Context(), Spec{Handle: string(v.ID), Command: []string{"x"}}); fault.KindOf(err) != fault.Conflict || !strings.Contains(err.Error(), "web") {
			t.Errorf("a run of that name: %v", err)
		}
		if got, err := s.Get(string(v.ID)); err != nil || got.Spec.Handle != "web" {
			t.Errorf("the id names %q, %v", got.Spec.Handle, err)
		}
		if err := s.Start(t.Context(), "web"); err != nil {
			t.Fatal(err)
		}
		if n := s.Running(); n != 1 {
			t.Errorf("%d run, want 1", n)
		}
		if err := s.Stop(t.Context(), "web"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := s.Running(); n != 0 || s.Len() != 1 {
			t.Errorf("%d of %d run, want none of one", n, s.Len())
		}
		if err := s.Close(t.Context(), StopAll); err != nil {
			t.Error(err)
		}
	})
}

func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStubWorld()
		w.runs = 24 * time.Hour
		s := NewSet(w.world())
		create(t, s, "web")
		time.Sleep(59 * time.Second)
		wantState(t, s, "web", Running)
		time.Sleep(5 * time.Second)
		wantState(t, s, "web", Paused)
		x, err := s.Exec(t.Context(), "web", ExecSpec{Command: []string{"sleep"}})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour) // silent, and held awake
		wantState(t, s, "web", Running)
		if v, _ := s.Get("web"); len(v.Holds) != 1 || !strings.HasPrefix(v.Holds[0].Owner, "exec exec-") {
			t.Errorf("holds = %+v", v.Holds)
		}
		if err := x.Close(); err != nil {
			t.Error(err)
		}
		time.Sleep(61 * time.Second)
		wantState(t, s, "web", Paused)
		if err := s.Close(t.Context(), StopAll); err != nil {
			t.Error(err)
		}
	})
}

func TestProgramEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStubWorld()
		w.runs, w.status = time.Hour, 0
		s := NewSet(w.world())
		v := create(t, s, "job")
		time.Sleep(2 * time.Hour)
		wantState(t, s, "job", Stopped)
		if log := w.logs[v.ID].String(); log != "[system] process exited (code=0)\n" {
			t.Errorf("log = %q", log)
		}
		if err := s.Start(t.Context(), "job"); err != nil {
			t.Fatal(err)
		}
		wantState(t, s, "job", Running)
		if err := s.Close(t.Context(), StopAll); err != nil {
			t.Error(err)
		}
	})
}

func TestCrashLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStubWorld()
		s := NewSet(w.world())
		v := create(t, s, "bad")
		for range crashLimit - 1 {
			time.Sleep(3 * time.Second)
			if err := s.Resume(t.Context(), "bad"); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(3 * time.Second)
		if err := s.Resume(t.Context(), "bad"); fault.BlameOf(err) != fault.Program {
			t.Errorf("wake of a crash loop: %v", err)
		}
		if log := w.logs[v.ID].String(); strings.Count(log, "code=7") != crashLimit || !strings.Contains(log, "crashed") {
			t.Errorf("log = %q", log)
		}
		if err := s.Start(t.Context(), "bad"); err != nil {
			t.Errorf("explicit start: %v", err)
		}
		if err := s.Close(t.Context(), StopAll); err != nil {
			t.Error(err)
		}
	})
}

// TestLongRunsAreNoCrashLoop: a server that fails after it has run for a while is started again
// as often as it is asked for.
func TestLongRunsAreNoCrashLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStubWorld()
		w.runs = crashSoon + time.Second
		s := NewSet(w.world())
		create(t, s, "server")
		for i := range 2 * crashLimit {
			if err := s.Resume(t.Context(), "server"); err != nil {
				t.Fatalf("start %d: %v", i+1, err)
			}
			time.Sleep(w.runs + 2*time.Second)
			wantState(t, s, "server", Stopped)
		}
		closeSet(t, s, StopAll)
	})
}

func TestBootFailureIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStubWorld()
		w.startErr = fault.New(fault.Exhausted, "no memory").By(fault.Host)
		s := NewSet(w.world())
		v := create(t, s, "web")
		if err := s.Start(t.Context(), "web"); fault.KindOf(err) != fault.Exhausted {
			t.Errorf("start = %v", err)
		}
		wantState(t, s, "web", Stopped)
		if v, _ := s.Get("web"); !strings.Contains(v.Why, "no memory") {
			t.Errorf("why = %q", v.Why)
		}
		if log := w.logs[v.ID].String(); !strings.Contains(log, "no memory") {
			t.Errorf("log = %q", log)
		}
		if err := s.Close(t.Context(), StopAll); err != nil {
			t.Error(err)
		}
	})
}

// TestDaemonReplaced lets a daemon go and starts another: the machine is the same,
// and nothing happened to the instance.
func TestDaemonReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStubWorld()
		w.runs = 24 * time.Hour
		old := NewSet(w.world())
		v := create(t, old, "web")
		if err := old.Start(t.Context(), "web"); err != nil {
			t.Fatal(err)
		}
		if err := old.Disable(t.Context(), string(create(t, old, "off").ID)); err != nil {
			t.Fatal(err)
		}
		if err := old.Close(t.Context(), Keep); err != nil {
			t.Fatal(err)
		}
		if m, _ := w.left(); m != 1 {
			t.Fatalf("%d machines after the daemon left, want 1", m)
		}
		s := NewSet(w.world())
		if err := s.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		wantState(t, s, "web", Running)
		wantState(t, s, "off", Stopped)
		if off, _ := s.Get("off"); off.Enabled {
			t.Error("a disabled instance came back enabled")
		}
		if w.boots != 1 {
			t.Errorf("%d boots, want 1", w.boots)
		}
		if log := w.logs[v.ID].String(); log != "" {
			t.Errorf("log = %q, want nothing said", log)
		}
		for _, name := range []string{"web", "off"} {
			if err := s.Delete(t.Context(), name); err != nil {
				t.Error(err)
			}
		}
		checkNothingLeft(t, w, s)
		if err := s.Close(t.Context(), Keep); err != nil {
			t.Error(err)
		}
	})
}

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStubWorld()
		w.runs = 24 * time.Hour
		s := NewSet(w.world())
		changes, stop := s.Watch()
		defer stop()
		create(t, s, "web")
		if err := s.Start(t.Context(), "web"); err != nil {
			t.Fatal(err)
		}
		if c := <-changes; c.From != Booting || c.To != Running || c.Handle != "web" {
			t.Errorf("change = %+v", c)
		}
		if err := s.Close(t.Context(), StopAll); err != nil {
			t.Error(err)
		}
		for c := range changes { // to its end: Close closes it
			if c.Handle != "web" {
				t.Errorf("change = %+v", c)
			}
		}
	})
}
