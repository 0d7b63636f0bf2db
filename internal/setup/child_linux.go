package setup

import (
	"context"
	"os/exec"
	"syscall"
)

// childAttr returns the attributes of a program that works on mounts. It has a
// process group of its own, so that all of it can be asked to stop. As root it also
// has its own view of the mounts: what it mounts is gone with it, however it ends.
// Where that is not allowed, as in some containers, it does without.
func childAttr(ctx context.Context, root bool) *syscall.SysProcAttr {
	plain := &syscall.SysProcAttr{Setpgid: true}
	if !root {
		return plain
	}
	private := &syscall.SysProcAttr{Setpgid: true, Unshareflags: syscall.CLONE_NEWNS}
	probe := exec.CommandContext(ctx, "/bin/true")
	probe.SysProcAttr = private
	if probe.Run() != nil {
		return plain
	}
	return private
}
