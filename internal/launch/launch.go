package launch

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/paths"
	"github.com/xfeldman/aegisvm/internal/presence"
)

// Daemon is the daemon of a home, whether it runs or not.
type Daemon struct {
	Home    paths.Home
	Environ func() []string // what it is started with, next to its home
}

// Client returns a client of the daemon. It does no I/O.
func (d Daemon) Client() *client.Client { return client.New(d.Home.Socket()) }

// Error is a daemon that did not start, with what it has logged.
type Error struct {
	Log []string // its last lines
	err error
}

// Error implements error.
func (e *Error) Error() string { return "aegisd did not start: " + e.err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.err }

// answerTimeout bounds how long a daemon may take for a simple answer. One that
// starts tries hardware virtualization first.
const answerTimeout = time.Minute

// Status asks the daemon what it is. Where none runs the error wraps
// client.ErrNotRunning.
func (d Daemon) Status(ctx context.Context) (api.Status, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, answerTimeout,
		fault.New(fault.Timeout, "aegisd does not answer").WithHint("look at %s; restart it: aegis down, then aegis up", d.Home.Log()))
	defer cancel()
	s, err := d.Client().Status(ctx)
	if errors.Is(err, client.ErrEnded) {
		// One that was killed gives its lock back before its socket.
		if pid, lockErr := presence.Holder(d.Home.Lock()); lockErr == nil && pid == 0 {
			return s, &client.Error{Kind: fault.Unavailable, Err: client.ErrNotRunning, Hint: "start it: aegis up"}
		}
	}
	return s, err
}

// logTail is how many lines of the log a person gets to see.
const logTail = 10

// Ensure returns the status of the daemon, after starting it if none runs.
// starting is called before that; nil is nobody. Of several processes at a time one
// starts the daemon and the others wait for it; within one process calls must come one
// after the other (package presence says why).
func (d Daemon) Ensure(ctx context.Context, starting func()) (api.Status, error) {
	s, err := d.Status(ctx)
	if errors.Is(err, client.ErrEnded) {
		// A daemon that is just dying still accepts connections, and holds its lock.
		err = d.awaitEnd(ctx)
	}
	if err != nil && !errors.Is(err, client.ErrNotRunning) || err == nil && s.PID != 0 {
		return s, err
	}
	if err := d.Home.Create(); err != nil {
		return s, fault.Wrap(fault.Unavailable, err, "cannot use %s", d.Home).By(fault.Host).
			WithHint("set AEGIS_HOME to a folder that you can write to")
	}
	lock, err := presence.AcquireWait(ctx, d.Home.StartLock())
	if err != nil {
		return s, err
	}
	defer func() { _ = lock.Release() }() // ends with this process, too
	if s, err = d.Status(ctx); !errors.Is(err, client.ErrNotRunning) {
		return s, err // started by whom we waited for
	}
	if starting != nil {
		starting()
	}
	if err := d.start(ctx); err != nil {
		return s, err
	}
	return d.Status(ctx)
}

// endPatience bounds the wait for a daemon that is dying.
const endPatience = 30 * time.Second

// awaitEnd returns when no daemon holds the home.
func (d Daemon) awaitEnd(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, endPatience,
		fault.New(fault.Timeout, "a daemon that does not answer holds %s", d.Home).WithHint("see: aegis doctor"))
	defer cancel()
	lock, err := presence.AcquireWait(ctx, d.Home.Lock())
	if err != nil {
		return err
	}
	return lock.Release()
}

// start starts aegisd in a session of its own, and returns when it serves.
func (d Daemon) start(ctx context.Context) error {
	bin, err := paths.Program("aegisd")
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "the daemon's program is missing").By(fault.Host).
			WithHint("install AegisVM again, or run make build in its source")
	}
	log, err := os.OpenFile(d.Home.Log(), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the daemon has its own
	before, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if err = d.spawn(ctx, bin, log); err == nil || ctx.Err() != nil {
		return err
	}
	return &Error{lastLines(log, before), err}
}

// spawn starts the daemon and waits for its word, which is an event: it writes to a
// pipe, or ends and thereby closes it.
func (d Daemon) spawn(ctx context.Context, bin string, log *os.File) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }() // only read
	// The daemon outlives this command.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), bin)
	cmd.Dir = "/"
	cmd.Env = append(d.Environ(), "AEGIS_HOME="+string(d.Home), api.ReadyFD+"=3")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{w} // becomes descriptor 3
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	_ = w.Close() // the daemon has it, or nobody
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "start %s", bin).By(fault.Host).WithHint("install AegisVM again")
	}
	stop := context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(time.Unix(1, 0)) }) // pipes have deadlines
	defer stop()
	var word api.Ready
	err = json.NewDecoder(r).Decode(&word)
	switch {
	case err == nil && word.Error == nil:
		return cmd.Process.Release()
	case ctx.Err() != nil:
		_ = cmd.Process.Signal(syscall.SIGTERM) // it has ended, or does so
		return context.Cause(ctx)
	}
	ended := cmd.Wait()
	if word.Error != nil {
		return word.Error.Fault()
	}
	return fault.New(fault.Unavailable, "it ended while it started: %v", ended).By(fault.Host).
		WithHint("its log is %s", d.Home.Log())
}

// lastLines returns the last lines of a log behind offset. What cannot be read is
// not shown.
func lastLines(log *os.File, offset int64) []string {
	fi, err := log.Stat()
	if err != nil || fi.Size() <= offset {
		return nil
	}
	var lines []string
	in := bufio.NewScanner(io.NewSectionReader(log, offset, fi.Size()-offset))
	for in.Scan() {
		// The daemon's last words repeat the error, in the form of errors.
		if line := in.Text(); !strings.HasPrefix(line, "aegisd: ") && !strings.HasPrefix(line, "  hint: ") {
			lines = append(lines, line)
		}
	}
	return slices.Clip(lines[max(0, len(lines)-logTail):])
}
