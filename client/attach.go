package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/frame"
)

// Attach is a connection to a running program. Resize and Signal may be called
// while Stream runs, Close at any time.
type Attach struct {
	conn     halfCloser
	in       *frame.Reader
	instance string

	mu  sync.Mutex // orders frames on their way to the program
	out []byte
}

// Streams is where a program's streams go. A nil Stdin is none; with a terminal all
// output comes over Stdout. A nil Notice is nobody.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Notice         func(*Error) // told what the program's user should know; between two writes
}

// OutputError reports that a program's output could not be written.
type OutputError struct {
	Stream string // "stdout", "stderr"
	Err    error
}

// Error implements error.
func (e *OutputError) Error() string { return fmt.Sprintf("write to %s: %v", e.Stream, e.Err) }

// Unwrap returns the cause.
func (e *OutputError) Unwrap() error { return e.Err }

// Instance returns the id of the instance in which the program runs.
func (a *Attach) Instance() string { return a.instance }

// Stream passes the program's streams on until it ends, and returns its exit
// status: 0-255, or 128 and the signal that killed it. It fails with an *Error when
// there is no status, with an *OutputError when nobody takes the output, and with
// the cause of ctx. In each case the program and its instance have ended.
//
// Reading stdin goes on until that Read returns, or for ever; what it returns then
// is lost. The same goes for a Write that still blocks when ctx ends.
func (a *Attach) Stream(ctx context.Context, s Streams) (int, error) {
	stop := context.AfterFunc(ctx, func() { giveUp(a.conn) })
	defer stop()
	input := make(chan error, 1)
	if s.Stdin != nil {
		go a.copyInput(s.Stdin, input)
	}
	ended := make(chan result, 1)
	go func() {
		status, err := a.copyOutput(ctx, s)
		_ = a.conn.Close() // what was not sent, nobody wants any more
		ended <- result{status, err}
	}()
	var r result
	select {
	case r = <-ended:
	case <-ctx.Done():
		// The daemon clears away, and closes the connection. A Write that blocks must
		// not keep the caller for ever.
		select {
		case <-ended:
		case <-time.After(farewell):
			_ = a.conn.Close() // as above
		}
		return 0, context.Cause(ctx)
	}
	select {
	case err := <-input:
		return 0, err
	default:
		return r.status, r.err
	}
}

// result is how a program ended.
type result struct {
	status int
	err    error
}

// copyOutput writes the program's output, and returns its status.
func (a *Attach) copyOutput(ctx context.Context, s Streams) (int, error) {
	for {
		f, err := a.in.Next()
		if err != nil {
			return 0, lost(ctx, err)
		}
		if ctx.Err() != nil {
			continue // nobody wants more of it
		}
		switch f.Type { //nolint:exhaustive // the others are on no account for clients
		case frame.Stdout:
			err = write(s.Stdout, "stdout", f.Payload)
		case frame.Stderr:
			err = write(s.Stderr, "stderr", f.Payload)
		case frame.Exit:
			status, err := f.Status()
			return int(status), err
		case frame.Notice:
			err = s.note(f.Payload)
		case frame.Error:
			return 0, decodeError(f.Payload)
		}
		if err != nil {
			_ = a.Close() // the first error tells more
			return 0, err
		}
	}
}

func write(w io.Writer, name string, b []byte) error {
	if w == nil {
		return nil
	}
	if _, err := w.Write(b); err != nil {
		return &OutputError{name, err}
	}
	return nil
}

func (s *Streams) note(b []byte) error {
	if s.Notice == nil {
		return nil
	}
	var e api.Error
	if err := json.Unmarshal(b, &e); err != nil {
		return fmt.Errorf("decode a notice: %w", err)
	}
	s.Notice(e.Fault())
	return nil
}

func decodeError(b []byte) error {
	var e api.Error
	if err := json.Unmarshal(b, &e); err != nil {
		return fmt.Errorf("decode the error that ended the program: %w", err)
	}
	return e.Fault()
}

// lost explains a stream that ended without a status.
func lost(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if isLost(err) || errors.Is(err, os.ErrDeadlineExceeded) {
		return fault.New(fault.Unavailable, "aegisd ended, and the program with it").
			By(fault.Host).WithHint("its log tells why; start it again: aegis up")
	}
	return fmt.Errorf("read the program's output: %w", err)
}

// copyInput sends stdin to its end. That the daemon takes no more is no error of
// the input; a read error is, and ends the program.
func (a *Attach) copyInput(r io.Reader, failed chan<- error) {
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 && a.send(frame.Stdin, buf[:n]) != nil {
			return
		}
		if errors.Is(err, io.EOF) {
			_ = a.send(frame.EOF, nil) // see above
			return
		}
		if err != nil {
			failed <- fmt.Errorf("read stdin: %w", err)
			giveUp(a.conn)
			return
		}
	}
}

// Resize tells the program the size of its terminal.
func (a *Attach) Resize(size api.Winsize) error { return a.send(frame.Resize, size.Encode()) }

// Signal sends the program a signal.
func (a *Attach) Signal(sig syscall.Signal) error {
	return a.send(frame.Signal, []byte{byte(sig)}) //nolint:gosec // the daemon refuses what is no signal
}

func (a *Attach) send(t frame.Type, payload []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.out = frame.Append(a.out[:0], t, payload)
	_, err := a.conn.Write(a.out)
	return err
}

// Close ends the program and its instance. It returns when the daemon says that
// nothing is left of them, or takes too long.
func (a *Attach) Close() error {
	giveUp(a.conn)
	for {
		if _, err := a.in.Next(); err != nil {
			break
		}
	}
	return a.conn.Close()
}
