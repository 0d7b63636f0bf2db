//go:build linux

package pid1

import (
	"errors"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/guest/process"
	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// launcher implements process.Launcher with the kernel.
type launcher struct {
	reaper  *reaper
	machine *machine
}

// Launch implements process.Launcher.
func (l *launcher) Launch(req guestproto.Spawn) (process.Process, error) {
	who, err := lookupUser(req.User)
	if err != nil {
		return nil, err
	}
	dir := req.Workdir
	if dir == "" {
		dir = "/"
	}
	if err := checkWorkdir(dir); err != nil {
		return nil, err
	}
	env := environment(req, who)
	path, err := lookPath(req.Command[0], dir, env)
	if err != nil {
		return nil, err
	}
	var io *stdio
	if req.TTY != nil {
		io, err = openTerminal(*req.TTY, who.uid)
	} else {
		io, err = openPipes(req.Stdin)
	}
	if err != nil {
		return nil, exhausted(err)
	}
	group, err := newCgroup(req.ID)
	if err != nil {
		io.close()
		return nil, exhausted(err)
	}
	attr := &syscall.ProcAttr{
		Dir: dir, Env: env, Files: io.childFDs(),
		Sys: &syscall.SysProcAttr{
			Setsid: true, Setctty: req.TTY != nil, Ctty: 0,
			Credential:  who.credential(),
			UseCgroupFD: true, CgroupFD: int(group.dir.Fd()),
		},
	}
	var pid int
	var done <-chan unix.WaitStatus
	l.machine.cold.start(func() {
		pid, done, err = l.reaper.start(func() (int, error) { return syscall.ForkExec(path, req.Command, attr) })
	})
	io.closeChild()
	if err != nil {
		io.close()
		group.remove()
		return nil, execError(req.Command[0], err)
	}
	return &child{reaper: l.reaper, group: group, io: io, pid: pid, done: done}, nil
}

func exhausted(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM) {
		return &guestproto.Error{Code: guestproto.CodeExhausted, Msg: err.Error()}
	}
	return err
}

// child is a process and all it starts.
type child struct {
	reaper *reaper
	group  *cgroup
	io     *stdio
	pid    int
	done   <-chan unix.WaitStatus
}

// PID implements process.Process.
func (c *child) PID() int { return c.pid }

// Outputs implements process.Process.
func (c *child) Outputs() []process.Output {
	out := []process.Output{{Type: frame.Stdout, Reader: c.io.stdout}}
	if c.io.stderr != nil {
		out = append(out, process.Output{Type: frame.Stderr, Reader: c.io.stderr})
	}
	return out
}

// Stdin implements process.Process.
func (c *child) Stdin() io.WriteCloser {
	if c.io.stdin == nil {
		return nil // not a nil pointer in an interface
	}
	return c.io.stdin
}

// Resize implements process.Process.
func (c *child) Resize(size frame.Winsize) error {
	if c.io.terminal == nil {
		return nil
	}
	return setWinsize(c.io.terminal, size)
}

// Signal implements process.Process.
func (c *child) Signal(sig int) error {
	group := c.pid // it leads its session, and so a process group
	if c.io.terminal != nil {
		if fg, err := foreground(c.io.terminal); err == nil && fg > 0 {
			group = fg
		}
	}
	return c.reaper.signal(c.pid, -group, unix.Signal(sig))
}

// Kill implements process.Process.
func (c *child) Kill(sig int) error { return c.group.kill(unix.Signal(sig)) }

// Wait implements process.Process.
func (c *child) Wait() int32 {
	status := <-c.done
	if status.Signaled() {
		return int32(128 + status.Signal()) //nolint:gosec // at most 64
	}
	return int32(status.ExitStatus()) //nolint:gosec // 0-255
}

// OutOfMemory implements process.Process.
func (c *child) OutOfMemory() bool {
	kills := value(c.group.path+"/memory.events", "oom_kill") // of children's cgroups too
	return kills != "" && kills != "0"
}

// Release implements process.Process. When all of the cgroup is dead nothing writes
// to the outputs any more, though a descriptor may have gone elsewhere: what is in
// them is read, and no more is waited for.
func (c *child) Release() {
	if !c.group.remove() {
		console("processes of pid %d would not die", c.pid)
	}
	c.io.settle()
}

// past frees whoever reads or writes.
var past = time.Unix(1, 0)

// devNull is the input of processes that have none.
func devNull() (*os.File, error) { return os.OpenFile("/dev/null", os.O_RDONLY, 0) }
