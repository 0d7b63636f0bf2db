package process

import (
	"context"
	"encoding/json"
	"sync"
	"syscall"
	"time"

	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/guest/outlog"
	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// leftovers is how long the children that a process leaves behind may go on
// writing to its output. It is time for the last line of a pipeline's end, not for
// a server: nothing outlives its exec.
const leftovers = 500 * time.Millisecond

// Exec is one process and what the host may still ask of it.
type Exec struct {
	ID    guestproto.ExecID
	Log   *outlog.Log
	Stdin *Stdin // nil if the process has no input

	proc Process
	done chan struct{} // closed when the Exit frame is in the log

	mu     sync.Mutex
	detach context.CancelFunc // ends the attachment in progress
}

// PID returns the process's id in the guest.
func (e *Exec) PID() int { return e.proc.PID() }

// Done is closed when the process has ended and all its output is in the log.
func (e *Exec) Done() <-chan struct{} { return e.done }

// Resize sets the size of the process's terminal.
func (e *Exec) Resize(size frame.Winsize) error { return e.proc.Resize(size) }

// Signal signals the foreground group of the process's terminal, or the process.
func (e *Exec) Signal(sig int) error { return e.proc.Signal(sig) }

// Kill signals every process of the exec.
func (e *Exec) Kill(sig int) error { return e.proc.Kill(sig) }

// Running reports whether the process's end is still to come.
func (e *Exec) Running() bool {
	select {
	case <-e.done:
		return false
	default:
		return true
	}
}

// Attach returns a context for the one who serves the exec's stream from now on,
// and ends that of the one before.
func (e *Exec) Attach(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.detach != nil {
		e.detach()
	}
	e.detach = cancel
	return ctx, cancel
}

// run serves the process until its end is in the log.
func (e *Exec) run() {
	defer close(e.done)
	var input sync.WaitGroup
	if e.Stdin != nil {
		input.Go(func() { e.Stdin.feed(e.proc.Stdin()) })
	}
	outputs := make(chan struct{})
	go func() { // waited for below
		defer close(outputs)
		var wg sync.WaitGroup
		for _, out := range e.proc.Outputs() {
			wg.Go(func() { e.pump(out) })
		}
		wg.Wait()
	}()
	status := e.proc.Wait()
	if e.Stdin != nil {
		e.Stdin.kill()
	}
	late := time.NewTimer(leftovers)
	defer late.Stop()
	select {
	case <-outputs:
	case <-late.C:
	}
	starved := e.proc.OutOfMemory()
	e.proc.Release()
	<-outputs
	input.Wait()
	// Not before: the end of a terminal's master hangs up on whoever is still about to
	// exit.
	for _, out := range e.proc.Outputs() {
		_ = out.Reader.Close() // it was read to its end
	}
	if starved {
		e.note(guestproto.OOM{Exec: e.ID})
	}
	e.Log.Exit(status)
}

// pump copies one output to the log. When the log is full it waits, and so does
// the process.
func (e *Exec) pump(out Output) {
	buf := make([]byte, outlog.MaxChunk)
	for {
		n, err := out.Reader.Read(buf)
		if n > 0 && e.Log.Append(out.Type, buf[:n]) != nil {
			return // the log is closed: nobody wants the output
		}
		if err != nil {
			return // the end; a pipe or terminal has no other error that matters here
		}
	}
}

// note adds what the host's user should know to the log.
func (e *Exec) note(oom guestproto.OOM) {
	if b, err := json.Marshal(oom); err == nil { // strings always encode
		_ = e.Log.Append(frame.Notice, b) // a closed log has no reader
	}
}

// abandon ends a process that nobody owns.
func (e *Exec) abandon() {
	e.Log.Close()
	_ = e.Kill(int(syscall.SIGKILL)) // it may have ended already
}
