package httpapi

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/presence"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stubRunner runs programs that are Go functions. It counts what exists.
type stubRunner struct {
	boot func(ctx context.Context, spec instance.Spec) error // nil succeeds
	main func(p *program)

	mu   sync.Mutex
	live int
	last instance.Spec
}

func (s *stubRunner) Run(ctx context.Context, spec instance.Spec) (Running, error) {
	s.mu.Lock()
	s.last = spec
	s.mu.Unlock()
	if s.boot != nil {
		if err := s.boot(ctx, spec); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	s.live++
	s.mu.Unlock()
	p := &program{runner: s, out: make(chan frame.Frame), in: make(chan frame.Frame), dead: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(p.done)
		s.main(p)
	}()
	return p, nil
}

func (s *stubRunner) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live
}

// program is a Running: unbuffered, as a program with a full buffer is.
type program struct {
	runner *stubRunner
	out    chan frame.Frame
	in     chan frame.Frame
	dead   chan struct{} // closed when the machine has ended
	done   chan struct{} // closed when main has returned
	once   sync.Once
	why    error // set before dead is closed
	ended  bool
}

var errDead = errors.New("dead")

// print writes to a stream of the program; false means that it was killed.
func (p *program) print(t frame.Type, b []byte) bool {
	select {
	case p.out <- frame.Frame{Type: t, Payload: b}:
		return true
	case <-p.dead:
		return false
	}
}

func (p *program) exit(status int32) { p.print(frame.Exit, frame.EncodeStatus(status)) }

// read returns the next frame for the program.
func (p *program) read() (frame.Frame, bool) {
	select {
	case f := <-p.in:
		return f, true
	case <-p.dead:
		return frame.Frame{}, false
	}
}

// die ends the machine under the program.
func (p *program) die(why error) {
	p.once.Do(func() {
		p.why = why
		close(p.dead)
		p.runner.mu.Lock()
		p.runner.live--
		p.runner.mu.Unlock()
	})
}

func (p *program) ID() instance.ID { return "inst-0" }

func (p *program) Recv() (frame.Frame, error) {
	if p.ended {
		return frame.Frame{}, io.EOF
	}
	select {
	case f := <-p.out:
		p.ended = f.Type == frame.Exit
		return f, nil
	case <-p.dead:
		return frame.Frame{}, p.why
	}
}

func (p *program) Send(f frame.Frame) error {
	f.Payload = append([]byte(nil), f.Payload...)
	select {
	case p.in <- f:
		return nil
	case <-p.dead:
		return p.why
	}
}

func (p *program) Close() error {
	p.die(errDead)
	<-p.done
	return nil
}

// serve starts a server for the runner and returns a client of it. When the test
// ends nothing may be left of it.
func serve(t *testing.T, run *stubRunner) (*client.Client, *Server, string) {
	t.Helper()
	return serveConfig(t, run, Config{}, os.Getuid())
}

func serveConfig(t *testing.T, run *stubRunner, conf Config, uid int) (*client.Client, *Server, string) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	ln, err := presence.Listen(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	conf.Runner = run
	if conf.Log == nil {
		conf.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	conf.Status = func() api.Status { return api.Status{Status: "running", Version: "v"} }
	s := New(conf, uid)
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	t.Cleanup(func() {
		s.Hurry()
		if err := errors.Join(s.Close(context.Background()), <-served); err != nil {
			t.Error(err)
		}
		if n := run.count(); n != 0 {
			t.Errorf("%d runs left", n)
		}
	})
	return client.New(socket), s, socket
}

func dial(t *testing.T, socket string) *net.UnixConn {
	t.Helper()
	c, err := presence.Dial(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.(*net.UnixConn)
}

func wantFault(t *testing.T, err error, kind fault.Kind, msg string) {
	t.Helper()
	if err == nil || fault.KindOf(err) != kind || !errorContains(err, msg) {
		t.Errorf("err = %v (%s), want %s: ...%s...", err, fault.KindOf(err), kind, msg)
	}
}
