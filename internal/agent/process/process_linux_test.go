package process

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestNothingOutlivesItsCall starts a program that makes itself a daemon, in another
// session and without a parent, and ends it by its mark.
func TestNothingOutlivesItsCall(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	cmd := Command(t.Context(), "run-1/call-1", "sh", "-c", "setsid sh -c 'echo $$ > "+pidFile+"; sleep 1000' >/dev/null 2>&1 &")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	pid := 0
	for deadline := time.Now().Add(10 * time.Second); pid == 0 && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		data, _ := os.ReadFile(pidFile)
		pid, _ = strconv.Atoi(strings.TrimSpace(string(data)))
	}
	if pid == 0 {
		t.Fatal("the daemon did not start")
	}
	if n := End("run-2"); n != 0 {
		t.Errorf("another run's end killed %d", n)
	}
	if n := End("run-1"); n == 0 {
		t.Error("nothing was found")
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		if time.Now().After(deadline) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			t.Fatalf("process %d lives", pid)
		}
	}
}

func TestCancelKillsTheGroup(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cmd := Command(ctx, "run-3", "sh", "-c", "sleep 1000 & sleep 1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer End("run-3")
	for deadline := time.Now().Add(10 * time.Second); len(marked("run-3")) < 2; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not start the other")
		}
	}
	cancel()
	if err := cmd.Wait(); err == nil {
		t.Error("it ended well")
	}
	// What is killed dies when it is scheduled, and nobody tells.
	for deadline := time.Now().Add(10 * time.Second); syscall.Kill(-cmd.Process.Pid, 0) == nil && len(marked("run-3")) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("some of the group lives")
		}
	}
}
