package libkrun

import (
	"context"
	"syscall"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// Pause implements vmm.Machine. All of the worker stands still: the vCPUs, and what
// passes on the guest's bytes and frames.
func (m *Machine) Pause(ctx context.Context) error {
	return m.do(ctx, func() error {
		if err := m.proc.signal(syscall.SIGSTOP); err != nil {
			return errSignal(err)
		}
		if err := m.awaitStopped(ctx); err != nil {
			_ = m.proc.signal(syscall.SIGCONT) // as it was before; Kill is still possible if that fails
			return err
		}
		return nil
	})
}

// Resume implements vmm.Machine.
func (m *Machine) Resume(ctx context.Context) error {
	return m.do(ctx, func() error {
		if err := m.proc.signal(syscall.SIGCONT); err != nil {
			return errSignal(err)
		}
		return nil
	})
}

// Paused implements vmm.Machine.
func (m *Machine) Paused(ctx context.Context) (is bool, err error) {
	err = m.do(ctx, func() error {
		is, err = stopped(m.proc.id)
		return err
	})
	return is, err
}

// do runs an operation of which there is one at a time.
func (m *Machine) do(ctx context.Context, op func() error) error {
	if err := m.gone(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case m.op <- struct{}{}:
	case <-m.ended:
		return m.gone()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-m.op }()
	if err := m.gone(); err != nil {
		return err
	}
	if err := op(); err != nil {
		return m.explain(ctx, err)
	}
	return m.gone()
}

// stopInterval is how often the threads of a process that is being stopped are looked
// at: the kernel tells only parents, and not when all threads stand.
const stopInterval = time.Millisecond

func (m *Machine) awaitStopped(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, stopTimeout,
		fault.New(fault.Timeout, "the VM did not stop within %v", stopTimeout).By(fault.Driver).WithHint("aegis doctor"))
	defer cancel()
	tick := time.NewTicker(stopInterval)
	defer tick.Stop()
	for {
		is, err := stopped(m.proc.id)
		if is || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-m.ended:
			return m.gone()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func errSignal(err error) error {
	return fault.Wrap(fault.Internal, err, "signal to the worker").By(fault.Driver)
}
