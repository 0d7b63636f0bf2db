//go:build integration

package e2e

import (
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
)

// terminal is a person at a terminal in which a command runs.
type terminal struct {
	t    *testing.T
	cmd  *exec.Cmd
	tty  *os.File
	mu   sync.Mutex
	seen strings.Builder
	more chan struct{}
}

func openTerminal(t *testing.T, cmd *exec.Cmd, size *pty.Winsize) *terminal {
	t.Helper()
	tty, err := pty.StartWithSize(cmd, size)
	if err != nil {
		t.Fatal(err)
	}
	x := &terminal{t: t, cmd: cmd, tty: tty, more: make(chan struct{}, 1)}
	t.Cleanup(func() { _ = tty.Close() })
	go x.read()
	return x
}

func (x *terminal) read() {
	buf := make([]byte, 4096)
	for {
		n, err := x.tty.Read(buf)
		x.mu.Lock()
		x.seen.Write(buf[:n])
		x.mu.Unlock()
		select {
		case x.more <- struct{}{}:
		default:
		}
		if err != nil {
			return // EIO: the command has ended
		}
	}
}

func (x *terminal) screen() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.seen.String()
}

// expect waits until text appears after what was expected before, and forgets all
// up to it.
func (x *terminal) expect(text string) {
	x.t.Helper()
	deadline := time.After(60 * time.Second)
	for {
		x.mu.Lock()
		s := x.seen.String()
		if _, after, found := strings.Cut(s, text); found {
			x.seen.Reset()
			x.seen.WriteString(after)
			x.mu.Unlock()
			return
		}
		x.mu.Unlock()
		select {
		case <-x.more:
		case <-deadline:
			x.t.Fatalf("%q did not appear on the screen:\n%s", text, s)
		}
	}
}

func (x *terminal) typed(text string) {
	x.t.Helper()
	if _, err := io.WriteString(x.tty, text); err != nil {
		x.t.Fatal(err)
	}
}

func (x *terminal) wait() int {
	x.t.Helper()
	done := make(chan struct{})
	go func() {
		_ = x.cmd.Wait() // the status is what is looked at
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(60 * time.Second):
		x.t.Fatalf("the command does not end; screen:\n%s", x.screen())
	}
	return x.cmd.ProcessState.ExitCode()
}

// TestTerminal drives python's prompt as a person would.
func TestTerminal(t *testing.T) {
	h := newHost(t)
	x := openTerminal(t, h.aegis("run", "-i", "-t", "--", "python3"), &pty.Winsize{Cols: 91, Rows: 33})
	x.expect(">>> ")
	x.typed("import os, sys; print('size', os.get_terminal_size()[:], sys.stdin.isatty())\r")
	x.expect("size (91, 33) True")
	x.expect(">>> ")
	if err := pty.Setsize(x.tty, &pty.Winsize{Cols: 120, Rows: 40}); err != nil {
		t.Fatal(err)
	}
	x.typed("import time\r")
	x.expect(">>> ")
	x.typed("while os.get_terminal_size()[0] != 120: time.sleep(.1)\r\r")
	x.expect(">>> ")
	x.typed("print('resized', os.get_terminal_size()[:])\r")
	x.expect("resized (120, 40)")
	x.expect(">>> ")
	x.typed("time.sleep(600)\r")
	x.expect("\n")
	x.typed("\x03") // Ctrl-C goes to the program, which lives on
	x.expect("KeyboardInterrupt")
	x.expect(">>> ")
	x.typed("print(6 * 7)\r") // or else python itself ends as if by SIGINT
	x.expect("42")
	x.expect(">>> ")
	x.typed("\x04") // Ctrl-D ends it
	if status := x.wait(); status != 0 {
		t.Errorf("status = %d, want 0; screen:\n%s", status, x.screen())
	}
	h.eventuallyIdle(t)
}

func TestShellInTerminal(t *testing.T) {
	h := newHost(t)
	x := openTerminal(t, h.aegis("run", "-it", "--", "bash"), &pty.Winsize{Cols: 80, Rows: 24})
	x.expect("# ")
	x.typed("tty; sleep 300 & jobs; kill %1; wait; exit 3\r")
	x.expect("/dev/pts/")
	x.expect("Running")
	if status := x.wait(); status != 3 {
		t.Errorf("status = %d, want 3; screen:\n%s", status, x.screen())
	}
}
