package libkrun

import (
	"errors"
	"os"
	"syscall"
)

// process is a worker: our child, or one that an earlier daemon started. On Linux
// os.Process holds a pidfd, so that a signal goes to this very process.
type process struct {
	*os.Process
	child bool
}

func (p *process) pid() int { return p.Pid }

// signal sends a signal. A process that is gone takes any.
func (p *process) signal(s syscall.Signal) error {
	err := p.Signal(s)
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

func (p *process) kill() error { return p.signal(syscall.SIGKILL) }

// reap returns the status of a child that has ended, and lets go of it. It returns nil
// for a process that is not a child.
func (p *process) reap() *syscall.WaitStatus {
	if !p.child {
		_ = p.Release() // nothing can be done about it
		return nil
	}
	state, err := p.Wait()
	if err != nil {
		return nil
	}
	status, ok := state.Sys().(syscall.WaitStatus)
	if !ok {
		return nil
	}
	return &status
}
