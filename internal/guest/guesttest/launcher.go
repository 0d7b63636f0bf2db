package guesttest

import (
	"context"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"sync"
	"syscall"

	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/guest/process"
	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// Program is a command of the scripted guest. It returns its exit status, and must
// return soon after ctx has ended or its input and output have failed.
type Program func(ctx context.Context, io *IO) int

// IO is what a program has to do with the world.
type IO struct {
	Args   []string // Args[0] is the name
	Env    []string
	Dir    string
	User   string
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	TTY    *frame.Winsize // the terminal's first size, nil if there is none

	p *proc
}

// Trap returns the signals that come from now on; they no longer end the program.
// SIGKILL always does.
func (x *IO) Trap() <-chan int {
	x.p.mu.Lock()
	defer x.p.mu.Unlock()
	x.p.trapped = true
	return x.p.signals
}

// Resized returns the sizes that the terminal gets.
func (x *IO) Resized() <-chan frame.Winsize { return x.p.sizes }

type launcher struct {
	programs map[string]Program

	mu  sync.Mutex
	pid int
}

func newLauncher(extra map[string]Program) *launcher {
	l := &launcher{programs: builtins(), pid: 100}
	maps.Copy(l.programs, extra)
	return l
}

// Launch implements process.Launcher.
func (l *launcher) Launch(req guestproto.Spawn) (process.Process, error) {
	program, ok := l.programs[path.Base(req.Command[0])]
	switch {
	case req.Command[0] == "/etc/passwd":
		return nil, &guestproto.Error{Code: guestproto.CodeNotExecutable, Msg: "/etc/passwd: permission denied"}
	case !ok:
		return nil, &guestproto.Error{Code: guestproto.CodeNoCommand, Msg: req.Command[0] + ": command not found"}
	}
	l.mu.Lock()
	l.pid++
	p := &proc{pid: l.pid, done: make(chan struct{}), signals: make(chan int, 64), sizes: make(chan frame.Winsize, 64)}
	l.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	x := &IO{Args: req.Command, Env: req.Env, Dir: req.Workdir, User: req.User, Stdin: eof{}, TTY: req.TTY, p: p}
	if req.Stdin || req.TTY != nil {
		r, w := io.Pipe()
		x.Stdin, p.stdin = r, w
		p.pipes = append(p.pipes, r)
		if req.TTY != nil {
			p.stdin = &terminal{p: p, w: w}
		}
	}
	x.Stdout = p.output(frame.Stdout)
	x.Stderr = x.Stdout
	if req.TTY == nil {
		x.Stderr = p.output(frame.Stderr)
	}
	go func() { // ends with the program; Table.Close waits for it through Wait
		defer close(p.done)
		status := program(ctx, x)
		p.end(status)
	}()
	return p, nil
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

// proc is a running Program.
type proc struct {
	pid     int
	stdin   io.WriteCloser
	outputs []process.Output
	pipes   []io.Closer // closed at the end, which frees the program and its peers
	cancel  context.CancelFunc
	signals chan int
	sizes   chan frame.Winsize
	done    chan struct{}

	mu      sync.Mutex
	trapped bool
	ended   bool
	starved bool
	status  int
}

func (p *proc) output(t frame.Type) io.Writer {
	r, w := io.Pipe()
	p.outputs = append(p.outputs, process.Output{Type: t, Reader: r})
	p.pipes = append(p.pipes, w)
	return w
}

// end sets the status, once, and lets the program's streams end.
func (p *proc) end(status int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return
	}
	p.ended, p.status = true, status
	p.cancel()
	for _, c := range p.pipes {
		_ = c.Close() // never fails
	}
}

func (p *proc) PID() int                  { return p.pid }
func (p *proc) Outputs() []process.Output { return p.outputs }
func (p *proc) Stdin() io.WriteCloser     { return p.stdin }
func (p *proc) Release()                  {}

// OutOfMemory implements process.Process.
func (p *proc) OutOfMemory() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.starved
}

func (p *proc) Wait() int32 {
	<-p.done
	p.mu.Lock()
	defer p.mu.Unlock()
	return int32(p.status) //nolint:gosec // 0-255
}

func (p *proc) Resize(size frame.Winsize) error {
	select {
	case p.sizes <- size:
	default: // nobody looks at them
	}
	return nil
}

func (p *proc) Signal(sig int) error {
	p.mu.Lock()
	trapped := p.trapped
	p.mu.Unlock()
	deadly := slices.Contains([]syscall.Signal{
		syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGKILL, syscall.SIGTERM, syscall.SIGPIPE,
	}, syscall.Signal(sig))
	switch {
	case trapped && sig != int(syscall.SIGKILL):
		select {
		case p.signals <- sig:
		default: // as pending signals of a process merge
		}
	case deadly:
		p.end(128 + sig)
	case sig < 0 || sig > 64:
		return &guestproto.Error{Code: guestproto.CodeInvalid, Msg: fmt.Sprintf("signal %d", sig)}
	}
	return nil
}

func (p *proc) Kill(sig int) error { return p.Signal(sig) }

// terminal is the line discipline, as far as it goes: Ctrl-C and Ctrl-D.
type terminal struct {
	p *proc
	w *io.PipeWriter
}

func (t *terminal) Write(b []byte) (int, error) {
	for i, c := range b {
		switch c {
		case 3:
			_ = t.p.Signal(int(syscall.SIGINT)) // never fails
		case 4:
			_ = t.w.Close() // never fails
		default:
			if _, err := t.w.Write(b[i : i+1]); err != nil {
				return i, err
			}
		}
	}
	return len(b), nil
}

func (t *terminal) Close() error { return t.w.Close() }
