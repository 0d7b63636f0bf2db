package sidecar

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"golang.org/x/sys/unix"
)

// attributes puts a sidecar into a group of its own. There is no parent-death signal: the
// end of descriptor 3 tells it.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// startOf returns when a process was started. One that has ended is fs.ErrNotExist.
func startOf(pid int) (string, error) {
	info, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	if errors.Is(err, unix.ESRCH) || err == nil && int(info.Proc.P_pid) != pid {
		return "", fs.ErrNotExist
	}
	if err != nil {
		return "", fmt.Errorf("look at process %d: %w", pid, err)
	}
	t := info.Proc.P_starttime
	return fmt.Sprintf("%d.%06d", t.Sec, t.Usec), nil
}

// marked returns none: other processes' environments are not for everybody here.
func marked(string) []int { return nil }
