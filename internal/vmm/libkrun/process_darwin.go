package libkrun

import (
	"context"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/size"
)

// States of a process in sys/proc.h.
const (
	stateStopped = 4 // SSTOP
	stateZombie  = 5 // SZOMB
)

func processInfo(pid int) (*unix.KinfoProc, error) {
	info, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	if err != nil {
		return nil, err
	}
	if info.Proc.P_pid != int32(pid) || info.Proc.P_stat == stateZombie { //nolint:gosec // a process id
		return nil, errNoProcess
	}
	return info, nil
}

// startTime returns when a process was started, in microseconds: with its id it names
// a process for ever.
func startTime(pid int) (uint64, error) {
	info, err := processInfo(pid)
	if err != nil {
		return 0, err
	}
	t := info.Proc.P_starttime
	return uint64(t.Sec)*1e6 + uint64(t.Usec), nil //nolint:gosec // after 1970
}

// stopped tells whether a process stands after SIGSTOP.
func stopped(pid int) (bool, error) {
	info, err := processInfo(pid)
	if err != nil {
		return false, err
	}
	return info.Proc.P_stat == stateStopped, nil
}

// bootID names the time since the host was started.
func bootID() (string, error) { return unix.Sysctl("kern.bootsessionuuid") }

// psTimeout bounds ps(1).
const psTimeout = 5 * time.Second

// usedMemory returns the resident memory of a process. The kernel tells other users'
// programs only through ps(1), which has the right to ask.
func usedMemory(pid int) (size.Bytes, error) {
	ctx, cancel := context.WithTimeout(context.Background(), psTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, "/bin/ps", "-o", "rss=", "-p", strconv.Itoa(pid)).Output() //nolint:gosec // a number
	if err != nil {
		return 0, err
	}
	kb, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	return size.Bytes(kb) * size.KiB, err
}

// availableMemory returns the memory of the host: macOS makes room by compressing and
// swapping, and tells nothing of use about what is free.
func availableMemory() (size.Bytes, error) {
	n, err := unix.SysctlUint64("hw.memsize")
	return size.Bytes(n), err //nolint:gosec // far below 2^63
}
