package process_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/guest/process"
	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// fakeProcess is a process whose every move is the test's.
type fakeProcess struct {
	out      *io.PipeReader
	w        *io.PipeWriter
	in       *io.PipeWriter
	stdin    *io.PipeReader
	status   chan int32
	released chan struct{}

	mu      sync.Mutex
	signals []int
}

func newFakeProcess() *fakeProcess {
	p := &fakeProcess{status: make(chan int32, 1), released: make(chan struct{})}
	p.out, p.w = io.Pipe()
	p.stdin, p.in = io.Pipe()
	return p
}

func (p *fakeProcess) PID() int { return 7 }

func (p *fakeProcess) Outputs() []process.Output {
	return []process.Output{{Type: frame.Stdout, Reader: p.out}}
}
func (p *fakeProcess) Stdin() io.WriteCloser      { return p.in }
func (p *fakeProcess) Resize(frame.Winsize) error { return nil }
func (p *fakeProcess) Signal(sig int) error       { return p.Kill(sig) }
func (p *fakeProcess) OutOfMemory() bool          { return false }
func (p *fakeProcess) Wait() int32                { return <-p.status }

func (p *fakeProcess) Kill(sig int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.signals = append(p.signals, sig)
	if sig == 9 {
		select {
		case p.status <- 137:
		default:
		}
	}
	return nil
}

func (p *fakeProcess) Release() {
	_ = p.w.Close()
	_ = p.stdin.Close()
	close(p.released)
}

type launcher func(guestproto.Spawn) (process.Process, error)

func (l launcher) Launch(req guestproto.Spawn) (process.Process, error) { return l(req) }

func one(p *fakeProcess) launcher {
	return func(guestproto.Spawn) (process.Process, error) { return p, nil }
}

func spawn(t *testing.T, table *process.Table) *process.Exec {
	t.Helper()
	e, err := table.Spawn(guestproto.Spawn{ID: "x", Command: []string{"x"}})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func read(t *testing.T, e *process.Exec) string {
	t.Helper()
	var out bytes.Buffer
	buf := make([]byte, 100)
	for off := uint64(0); ; {
		n, err := e.Log.Read(t.Context(), off, buf)
		if err != nil {
			return out.String()
		}
		out.Write(buf[:n])
		off += uint64(n)
	}
}

// Everything written before the end precedes the status; what children left behind
// write counts for a moment, and then they are gone.
func TestEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFakeProcess()
		table := process.New(one(p), nil)
		e := spawn(t, table)
		if again := spawn(t, table); again != e {
			t.Error("a repeated Spawn made a process")
		}
		_, _ = p.w.Write([]byte("one"))
		begun := time.Now()
		p.status <- 4
		_, _ = p.w.Write([]byte("two")) // a child's
		<-p.released
		if took := time.Since(begun); took != 500*time.Millisecond {
			t.Errorf("leftovers lived for %v", took)
		}
		want := string(frame.Append(frame.Append(frame.Append(nil, frame.Stdout, []byte("one")), frame.Stdout, []byte("two")), frame.Exit, frame.EncodeStatus(4)))
		if got := read(t, e); got != want {
			t.Errorf("log %q, want %q", got, want)
		}
		synctest.Wait() // the end is in the log a moment before it is in the table
		if states := table.Keep([]guestproto.Owned{{Exec: "x", Offset: 8}}); len(states) != 1 || states[0] != (guestproto.Exec{ID: "x", End: uint64(len(want))}) {
			t.Errorf("states %+v", states)
		}
		if !table.Ack(e, uint64(len(want))) {
			t.Error("all was acknowledged")
		}
		if _, err := table.Get("x"); err == nil {
			t.Error("a process whose end is acknowledged is known")
		}
		_ = table.Close()
	})
}

func TestStdinWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFakeProcess()
		table := process.New(one(p), nil)
		e := spawn(t, table)
		block := bytes.Repeat([]byte("x"), guestproto.StdinWindow/2)
		if err := errors.Join(e.Stdin.Accept(block), e.Stdin.Accept(block)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := e.Stdin.Accept([]byte("x")); err == nil {
			t.Error("more than a window was taken")
		}
		e.Stdin.End()
		got, err := io.ReadAll(p.stdin)
		if err != nil || len(got) != guestproto.StdinWindow {
			t.Errorf("the process read %d bytes, %v", len(got), err)
		}
		synctest.Wait()
		if accepted, taken, _ := e.Stdin.State(); accepted != taken || taken != guestproto.StdinWindow {
			t.Errorf("accepted %d, taken %d", accepted, taken)
		}
		p.status <- 0
		<-e.Done()
		if err := e.Stdin.Accept(block); err != nil {
			t.Errorf("input for a process that has ended: %v", err)
		}
		_ = table.Close()
	})
}

func TestKeepKillsTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFakeProcess()
		table := process.New(one(p), nil)
		spawn(t, table)
		if states := table.Keep([]guestproto.Owned{{Exec: "other"}}); len(states) != 0 {
			t.Errorf("states %+v", states)
		}
		<-p.released
		if _, err := table.Get("x"); err == nil {
			t.Error("a process that nobody owns is known")
		}
		_ = table.Close()
	})
}

// A process that cannot be started before programs are let go does not hold up whoever is
// about to let them go.
func TestKeepDoesNotWaitForALaunch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		thaw := make(chan struct{})
		p := newFakeProcess()
		table := process.New(launcher(func(guestproto.Spawn) (process.Process, error) {
			<-thaw
			return p, nil
		}), nil)
		go func() { _, _ = table.Spawn(guestproto.Spawn{ID: "x", Command: []string{"x"}}) }()
		synctest.Wait()
		if states := table.Keep([]guestproto.Owned{{Exec: "x"}}); len(states) != 1 || states[0] != (guestproto.Exec{ID: "x", Running: true}) {
			t.Errorf("states %+v", states)
		}
		close(thaw)
		synctest.Wait()
		if _, err := table.Get("x"); err != nil {
			t.Error(err)
		}
		_ = table.Close()
	})
}

func TestTerminate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFakeProcess()
		table := process.New(one(p), nil)
		spawn(t, table)
		begun := time.Now()
		table.Terminate(3 * time.Second)
		if took := time.Since(begun); took != 3*time.Second {
			t.Errorf("it took %v", took)
		}
		if len(p.signals) != 2 || p.signals[0] != 15 || p.signals[1] != 9 {
			t.Errorf("signals %v", p.signals)
		}
		if _, err := table.Spawn(guestproto.Spawn{ID: "y", Command: []string{"y"}}); err == nil {
			t.Error("a process started while the VM goes down")
		}
		_ = table.Close()
	})
}

func TestSpawnRefusals(t *testing.T) {
	table := process.New(launcher(func(guestproto.Spawn) (process.Process, error) {
		return nil, &guestproto.Error{Code: guestproto.CodeNoCommand, Msg: "no"}
	}), nil)
	for _, c := range []struct {
		req  guestproto.Spawn
		code guestproto.Code
	}{
		{guestproto.Spawn{ID: "", Command: []string{"x"}}, guestproto.CodeInvalid},
		{guestproto.Spawn{ID: "../x", Command: []string{"x"}}, guestproto.CodeInvalid},
		{guestproto.Spawn{ID: "a.b", Command: []string{"x"}}, guestproto.CodeInvalid},
		{guestproto.Spawn{ID: guestproto.ExecID(strings.Repeat("a", 65)), Command: []string{"x"}}, guestproto.CodeInvalid},
		{guestproto.Spawn{ID: "x"}, guestproto.CodeInvalid},
		{guestproto.Spawn{ID: "x", Command: []string{""}}, guestproto.CodeInvalid},
		{guestproto.Spawn{ID: "x", Command: []string{"x"}, Env: []string{"A=\x00"}}, guestproto.CodeInvalid},
		{guestproto.Spawn{ID: "x", Command: []string{"x"}}, guestproto.CodeNoCommand},
	} {
		if _, err := table.Spawn(c.req); process.ErrorOf(err).Code != c.code {
			t.Errorf("%+v: %v, want %s", c.req, err, c.code)
		}
	}
	_, err := table.Spawn(guestproto.Spawn{ID: "x", Command: []string{"x"}, Env: []string{"KEY=hunter2\x00"}})
	if err == nil || !strings.Contains(err.Error(), `"KEY"`) || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a value that may be a secret is refused with: %v", err)
	}
	if states := table.Keep([]guestproto.Owned{{Exec: "x"}}); len(states) != 0 {
		t.Errorf("what could not be started left %+v", states)
	}
	_ = table.Close()
}
