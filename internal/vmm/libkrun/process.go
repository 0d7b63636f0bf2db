package libkrun

import (
	"errors"
	"os"
	"syscall"
)

// process is a worker: our child, or one that an earlier daemon started. On Linux
// os.Process holds a pidfd, so that a signal goes to this very process.
type process struct {
	id     int
	handle *os.Process
	child  bool
}

func newProcess(handle *os.Process, child bool) *process {
	return &process{id: handle.Pid, handle: handle, child: child}
}

// findProcess opens a process that is not a child. That it exists has to be found out.
func findProcess(id int) (*process, error) {
	handle, err := os.FindProcess(id)
	if err != nil {
		return nil, err
	}
	return newProcess(handle, false), nil
}

// signal sends a signal. A process that is gone takes any.
func (p *process) signal(s syscall.Signal) error {
	err := p.handle.Signal(s)
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

func (p *process) kill() error { return p.signal(syscall.SIGKILL) }

// reap waits for the end of a child and returns its status. It returns nil for a
// process that is not one.
func (p *process) reap() *syscall.WaitStatus {
	if !p.child {
		return nil
	}
	state, err := p.handle.Wait()
	if err != nil {
		return nil
	}
	status, ok := state.Sys().(syscall.WaitStatus)
	if !ok {
		return nil
	}
	return &status
}

// close lets go of the process, which takes no signals any more.
func (p *process) close() { _ = p.handle.Release() } // nothing can be done about it
