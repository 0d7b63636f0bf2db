package presence

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMain makes the test binary a second process that can hold a lock: the first
// argument "hold" is followed by the lock's path.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "hold" {
		if _, err := Acquire(os.Args[2]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("held")
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// hold has another process take the lock, until its stdin is closed.
func hold(t *testing.T, path string) (pid int, end func()) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "hold", path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "held\n" {
		t.Fatalf("the holder says %q, %v", line, err)
	}
	return cmd.Process.Pid, func() {
		_ = in.Close()
		_ = cmd.Wait()
	}
}

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	if pid, err := Holder(path); pid != 0 || err != nil {
		t.Fatalf("Holder of nothing = %d, %v", pid, err)
	}
	pid, end := hold(t, path)
	if got, err := Holder(path); got != pid || err != nil {
		t.Errorf("Holder = %d, %v; want %d", got, err, pid)
	}
	_, err := Acquire(path)
	if held, ok := errors.AsType[*HeldError](err); !ok || held.PID != pid {
		t.Errorf("Acquire = %v, want it held by %d", err, pid)
	}
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := AcquireWait(short, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("AcquireWait = %v, want a timeout", err)
	}
	time.AfterFunc(20*time.Millisecond, end)
	l, err := AcquireWait(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Release(); err != nil {
		t.Error(err)
	}
}

func TestLockOfNowhere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "no", "lock")
	if _, err := Acquire(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Acquire = %v", err)
	}
	if _, err := AcquireWait(t.Context(), path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("AcquireWait = %v", err)
	}
}

func TestSocket(t *testing.T) {
	long := filepath.Join(t.TempDir(), strings.Repeat("x", 120))
	if err := os.Mkdir(long, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{t.TempDir(), long} {
		path := filepath.Join(dir, "s")
		if err := os.WriteFile(path, nil, 0o600); err != nil { // left by a dead daemon
			t.Fatal(err)
		}
		ln, err := Listen(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		fi, err := os.Stat(path)
		if err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, %v", fi.Mode(), err)
		}
		conn, err := Dial(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		peer, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []io.Closer{conn, peer, ln} {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
		if _, err := Dial(t.Context(), path); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("Dial of a dead socket = %v", err)
		}
	}
	var op *net.OpError
	if _, err := Dial(t.Context(), filepath.Join(t.TempDir(), "none")); !errors.As(err, &op) {
		t.Errorf("Dial of nothing = %v", err)
	}
}
