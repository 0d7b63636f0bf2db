package host

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/size"
)

// Process is a VMM process: our child, or one that an earlier daemon started.
type Process struct {
	PID   int
	pidfd *os.File
	child *os.Process // nil if it is not ours
}

// OpenProcess returns the process pid.
func OpenProcess(pid int, child *os.Process) (*Process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	// Only a non-blocking descriptor is waited for without a thread.
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("pidfd", err)
	}
	return &Process{PID: pid, pidfd: os.NewFile(uintptr(fd), "pidfd"), child: child}, nil
}

// Wait blocks until the process has ended and reaps it if it is a child. It
// returns nil for a process that is not.
func (p *Process) Wait() (*syscall.WaitStatus, error) {
	if err := p.Ended(); err != nil || p.child == nil {
		return nil, err
	}
	state, err := p.child.Wait()
	if err != nil {
		return nil, err
	}
	status, ok := state.Sys().(syscall.WaitStatus)
	if !ok {
		return nil, errors.New("no wait status")
	}
	return &status, nil
}

// Ended blocks until the process has ended. A pidfd becomes readable then.
func (p *Process) Ended() error {
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0) //nolint:gosec // a descriptor
		return err == nil && n > 0
	})
}

// Kill sends SIGKILL to this very process, never to another that got its id.
func (p *Process) Kill() error {
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	if err := raw.Control(func(fd uintptr) { sent = unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0) }); err != nil {
		return err
	}
	if errors.Is(sent, unix.ESRCH) {
		return nil
	}
	return os.NewSyscallError("pidfd_send_signal", sent)
}

// Close gives the process up; it goes on.
func (p *Process) Close() { _ = p.pidfd.Close() } // nothing can be done about it

const (
	// niceness puts guests behind the daemon that serves them.
	niceness = 2
	// oomScore makes the kernel end a VM before the daemon or the user's session.
	oomScore = 500
	// maxFiles is far above the dozen descriptors that a machine uses.
	maxFiles = 256
)

// Confine bounds a process that has just been started; the sandbox of some would keep them
// from doing so themselves. All of it is a second line of defence: a daemon that may
// not set limits for others (root without CAP_SYS_RESOURCE in a container) still
// runs good machines, with the limits it has itself.
func Confine(pid int) {
	for what, limit := range map[int]uint64{unix.RLIMIT_CORE: 0, unix.RLIMIT_NOFILE: maxFiles} {
		_ = unix.Prlimit(pid, what, &unix.Rlimit{Cur: limit, Max: limit}, nil)
	}
	_ = unix.Setpriority(unix.PRIO_PROCESS, pid, niceness)
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), strconv.AppendInt(nil, oomScore, 10), 0)
}

// StartTime returns when a process was started, in ticks since boot: with its id
// and the boot's it names a process for ever.
func StartTime(pid int) (uint64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is a name in brackets that may hold anything.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	return strconv.ParseUint(string(fields[19]), 10, 64)
}

// BootID names the time since the host was started.
func BootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}

// PSS returns the memory of a process, its share of what it shares with others.
func PSS(pid int) (size.Bytes, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	return procKB(b, "Pss:")
}

// AvailableMemory returns what a new process can have without others being
// swapped out, and the free swap.
func AvailableMemory() (size.Bytes, error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	avail, err := procKB(b, "MemAvailable:")
	if err != nil {
		return 0, err
	}
	swap, err := procKB(b, "SwapFree:")
	return avail + swap, err
}

// procKB finds a line such as "Pss:   123 kB".
func procKB(b []byte, key string) (size.Bytes, error) {
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte(key)); ok {
			f := bytes.Fields(rest)
			if len(f) == 0 {
				break
			}
			kb, err := strconv.ParseInt(string(f[0]), 10, 64)
			return size.Bytes(kb) * size.KiB, err
		}
	}
	return 0, fmt.Errorf("no %s in what the kernel tells", key)
}

// OpenAt opens a file in a folder that is open.
func OpenAt(dir *os.File, name string, flags int, mode uint32) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, flags|unix.O_CLOEXEC, mode)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: filepath.Join(dir.Name(), name), Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Zombie tells whether the process has ended but was not reaped yet.
func (p *Process) Zombie() bool {
	var n int
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return true
	}
	err = raw.Control(func(fd uintptr) {
		n, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0) //nolint:gosec // a descriptor
	})
	return err != nil || n > 0
}

// Child tells whether this process has started it.
func (p *Process) Child() bool { return p.child != nil }
