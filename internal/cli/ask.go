package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// maxTyped is the longest line that a terminal takes, on Linux; it drops without a word
// what is behind that.
const maxTyped = 4095

// ask returns a line that a person types at the terminal, which does not show it. The
// terminal is as it was when ask returns.
func (a *app) ask(ctx context.Context, prompt string) (string, error) {
	fd := int(a.in.Fd())
	restore, err := silence(fd)
	if err != nil {
		return "", fmt.Errorf("ask on the terminal: %w", err)
	}
	defer func() {
		restore()
		_, _ = io.WriteString(a.err, "\n") // the line end that was typed is not shown
	}()
	_, _ = io.WriteString(a.err, prompt) // as in say
	line, err := awaiting(ctx, func() ([]byte, error) { return typedLine(fd) })
	if err != nil {
		return "", err
	}
	const hint = "put it in a file, and that on stdin: < FILE"
	switch {
	case drain(fd):
		// The rest would go to the shell, which would run it and remember it.
		return "", fault.New(fault.Invalid, "more than one line was typed or pasted").WithHint(hint)
	case len(line) >= maxTyped:
		return "", fault.New(fault.Invalid, "a line of more than %d letters cannot be typed", maxTyped).WithHint(hint)
	}
	return string(line), nil
}

// silence makes a terminal show nothing of what is typed. Lines can still be edited,
// and Ctrl-C still is a signal.
func silence(fd int) (restore func(), err error) {
	before, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	mode, err := unix.IoctlGetTermios(fd, getTermios)
	if err != nil {
		return nil, err
	}
	mode.Lflag = mode.Lflag&^(unix.ECHO|unix.ECHONL) | unix.ICANON | unix.ISIG
	mode.Iflag |= unix.ICRNL
	// An error means that the terminal has gone.
	return func() { _ = term.Restore(fd, before) }, unix.IoctlSetTermios(fd, setTermios, mode)
}

// typedLine returns the next line, without its end. It is empty if Ctrl-D was typed.
func typedLine(fd int) ([]byte, error) {
	for buf := make([]byte, maxTyped+1); ; {
		n, err := unix.Read(fd, buf)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return nil, fmt.Errorf("read from the terminal: %w", err)
		default:
			return bytes.TrimSuffix(buf[:n], []byte("\n")), nil
		}
	}
}

// drainPause is how long a paste takes at most between two pieces, in milliseconds.
const drainPause = 50

// drain reads what has been typed and not been read yet, and reports whether there was
// anything. It leaves the terminal raw: so the last line needs no end, and nothing is
// shown.
func drain(fd int) bool {
	if _, err := term.MakeRaw(fd); err != nil {
		return false // it has gone
	}
	some := false
	for buf := make([]byte, 4096); ; some = true {
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}} //nolint:gosec // descriptors are small
		n, err := unix.Poll(ready, drainPause)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 || ready[0].Revents&unix.POLLIN == 0 {
			return some
		}
		if n, err := unix.Read(fd, buf); err != nil || n <= 0 {
			return some
		}
	}
}

// awaiting returns what read does, or the cause of ctx's end if that comes first. Reads
// of stdin cannot be ended: one goes on until this process ends, which is soon.
func awaiting(ctx context.Context, read func() ([]byte, error)) ([]byte, error) {
	type result struct {
		b   []byte
		err error
	}
	done := make(chan result, 1)
	go func() {
		b, err := read()
		done <- result{b, err}
	}()
	select {
	case r := <-done:
		return r.b, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
