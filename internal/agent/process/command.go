package process

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// markName is the environment variable that has the mark.
const markName = "AEGIS_AGENT_CALL"

// outputGrace is how long a command that has ended may have children that write to its
// output.
const outputGrace = 500 * time.Millisecond

// Command returns a command that is not started, with mark in its environment. When ctx
// ends it is killed with all its group.
func Command(ctx context.Context, mark string, argv ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(without(os.Environ(), markName), markName+"="+mark)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return killGroup(cmd.Process.Pid) }
	cmd.WaitDelay = outputGrace
	return cmd
}

// KillGroup ends all processes of the group that cmd leads. It has been started.
func KillGroup(cmd *exec.Cmd) error { return killGroup(cmd.Process.Pid) }

func killGroup(pid int) error {
	if err := syscall.Kill(-pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

func without(env []string, name string) []string {
	var out []string
	for _, e := range env {
		if !strings.HasPrefix(e, name+"=") {
			out = append(out, e)
		}
	}
	return out
}

// maxSweeps bounds how often End looks for processes: each time it finds only those that
// were started while it killed the others.
const maxSweeps = 10

// End kills every process whose mark is mark, or begins with mark and a '/'. It returns
// how many there were.
func End(mark string) int {
	n := 0
	for range maxSweeps {
		found := marked(mark)
		for _, pid := range found {
			if syscall.Kill(pid, syscall.SIGKILL) == nil {
				n++
			}
		}
		if len(found) == 0 {
			break
		}
	}
	return n
}

// Living returns how many processes End would kill.
func Living(mark string) int { return len(marked(mark)) }
