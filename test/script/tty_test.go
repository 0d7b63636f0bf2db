package script

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/term"
)

// TestTerminal sits at a terminal in front of `aegis run -t`: its size arrives, keys
// go to the program, and the terminal is afterwards as it was.
func TestTerminal(t *testing.T) {
	for name, c := range map[string]struct {
		program string
		play    func(*terminal)
		status  int
	}{
		"size, lines, Ctrl-D": {"tty", func(x *terminal) {
			x.expect("91x33")
			x.resize(120, 40)
			x.expect("120x40")
			x.typed("hello\n")
			x.expect("hello")
			x.typed("\x04")
		}, 0},
		"Ctrl-C goes to the program": {"trap", func(x *terminal) {
			x.expect("ready")
			x.typed("\x03")
			x.expect("signal 2")
			x.typed("\x03")
			x.expect("signal 2")
			x.signal(syscall.SIGTERM) // to aegis, which ends
		}, 143},
		"Ctrl-C ends the program": {"tty", func(x *terminal) {
			x.expect("91x33")
			x.typed("\x03")
		}, 130},
		"the machine dies": {"panic-kernel", func(x *terminal) {
			x.expect("before")
			x.expect("aegis: the VM's kernel stopped")
		}, 125},
	} {
		t.Run(name, func(t *testing.T) {
			x := openTerminal(t, "run", "-t", "--", c.program)
			c.play(x)
			if got := x.wait(); got != c.status {
				t.Errorf("status %d, want %d; screen %q", got, c.status, x.screen)
			}
			x.unchanged()
		})
	}
}

// TestAskForSecret types a secret at a terminal, or gives up: the terminal never shows
// it and is afterwards as it was.
func TestAskForSecret(t *testing.T) {
	x := openTerminal(t, "secret", "set", "A")
	x.expect("Value of A: ")
	x.typed("hunter2\n")
	x.expect("Secret set: A")
	x.gone(0)
	run := exec.CommandContext(t.Context(), "aegis", "run", "--secret", "A", "--", "digest", "A")
	run.Env = x.cmd.Env
	out, err := run.Output()
	if want := fmt.Sprintf("A %x\n", sha256.Sum256([]byte("hunter2"))); string(out) != want || err != nil {
		t.Errorf("stored is %q, %v; want %q", out, err, want)
	}
	for _, end := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		x := openTerminal(t, "secret", "set", "A")
		x.expect("Value of A: ")
		if end == syscall.SIGINT {
			x.typed("hunter2\x03")
		} else {
			x.signal(end)
		}
		x.gone(128 + int(end))
	}
}

// gone waits for the command's end with a status. Nothing that was typed may be seen.
func (x *terminal) gone(status int) {
	x.t.Helper()
	if got := x.wait(); got != status {
		x.t.Errorf("status %d, want %d; screen %q", got, status, x.screen)
	}
	if strings.Contains(x.shown, "hunter") {
		x.t.Errorf("the terminal shows it: %q", x.shown)
	}
	x.unchanged()
}

type terminal struct {
	t      *testing.T
	cmd    *exec.Cmd
	tty    *os.File // the end with the keyboard
	before *term.State
	screen string // what expect has not met yet
	shown  string // all of it
}

// openTerminal starts `aegis` with these arguments and a home of its own.
func openTerminal(t *testing.T, args ...string) *terminal {
	t.Helper()
	env := append(os.Environ(), "AEGIS_HOME="+filepath.Join(t.TempDir(), "home"), "TERM=dumb")
	up := exec.CommandContext(t.Context(), "aegis", "up")
	up.Env = env
	if out, err := up.CombinedOutput(); err != nil {
		t.Fatalf("aegis up: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		down := exec.Command("aegis", "down") // the test's context has ended
		down.Env = env
		if out, err := down.CombinedOutput(); err != nil {
			t.Errorf("aegis down: %v\n%s", err, out)
		}
	})
	far, near, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = far.Close() })
	if err := pty.Setsize(far, &pty.Winsize{Cols: 91, Rows: 33}); err != nil {
		t.Fatal(err)
	}
	x := &terminal{t: t, tty: far, cmd: exec.CommandContext(t.Context(), "aegis", args...)}
	if x.before, err = term.GetState(int(far.Fd())); err != nil {
		t.Fatal(err)
	}
	x.cmd.Env = env
	x.cmd.Stdin, x.cmd.Stdout, x.cmd.Stderr = near, near, near
	x.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := x.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// This end stays open: on Linux the other one fails once nobody holds it.
	t.Cleanup(func() { _ = near.Close() })
	return x
}

func (x *terminal) expect(text string) {
	x.t.Helper()
	buf := make([]byte, 4096)
	if err := x.tty.SetReadDeadline(time.Now().Add(patience)); err != nil {
		x.t.Fatal(err)
	}
	for !strings.Contains(x.screen, text) {
		n, err := x.tty.Read(buf)
		if err != nil {
			x.t.Fatalf("%q does not appear: %v; screen %q", text, err, x.screen)
		}
		x.screen += string(buf[:n])
		x.shown += string(buf[:n])
	}
	_, x.screen, _ = strings.Cut(x.screen, text)
}

func (x *terminal) typed(keys string) {
	x.t.Helper()
	if _, err := x.tty.WriteString(keys); err != nil {
		x.t.Fatal(err)
	}
}

func (x *terminal) resize(cols, rows uint16) {
	x.t.Helper()
	if err := pty.Setsize(x.tty, &pty.Winsize{Cols: cols, Rows: rows}); err != nil {
		x.t.Fatal(err)
	}
}

func (x *terminal) signal(s syscall.Signal) {
	x.t.Helper()
	if err := x.cmd.Process.Signal(s); err != nil {
		x.t.Fatal(err)
	}
}

// unchanged checks that the terminal is as it was before.
func (x *terminal) unchanged() {
	x.t.Helper()
	after, err := term.GetState(int(x.tty.Fd()))
	if err != nil {
		x.t.Fatal(err)
	}
	if *after != *x.before {
		x.t.Error("the terminal is not as it was")
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
	case <-time.After(patience):
		x.t.Fatalf("the command does not end; screen %q", x.screen)
	}
	return x.cmd.ProcessState.ExitCode()
}
