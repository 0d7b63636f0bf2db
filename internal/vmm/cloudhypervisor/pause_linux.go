package cloudhypervisor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// Pause implements vmm.Machine.
func (m *Machine) Pause(ctx context.Context) error {
	return m.change(ctx, "vm.pause", "vm.resume", statePaused)
}

// Resume implements vmm.Machine.
func (m *Machine) Resume(ctx context.Context) error {
	return m.change(ctx, "vm.resume", "vm.pause", stateRunning)
}

// Paused implements vmm.Machine.
func (m *Machine) Paused(ctx context.Context) (bool, error) {
	if err := m.begin(ctx); err != nil {
		return false, err
	}
	defer func() { <-m.op }()
	is, err := m.state(ctx)
	if err != nil {
		return false, m.blame(ctx, err)
	}
	return is == statePaused, nil
}

// undoTimeout bounds the undoing of what was given up.
const undoTimeout = 20 * time.Second

// change brings the vCPUs into a state, and out of it again after an error.
func (m *Machine) change(ctx context.Context, do, undo, want string) error {
	if err := m.begin(ctx); err != nil {
		return err
	}
	defer func() { <-m.op }()
	is, err := m.state(ctx)
	if err != nil {
		return m.blame(ctx, err)
	}
	if is == want {
		return nil
	}
	if want == stateRunning {
		m.hold(nil).spoil()
	}
	if err = m.api.put(ctx, do, nil); err == nil {
		is, err = m.state(ctx)
		if err == nil && is != want {
			err = fmt.Errorf("the machine is %s, not %s", is, want)
		}
	}
	if err != nil {
		// It works in order: whatever becomes of the first request, after this one the
		// machine is as it was.
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
		defer cancel()
		_ = m.api.put(late, undo, nil) // refused where there is nothing to undo
		return m.blame(ctx, err)
	}
	if want == stateRunning {
		m.saved.Store(false)
	}
	return nil
}

// begin waits for the operations before this one.
func (m *Machine) begin(ctx context.Context) error {
	if err := m.gone(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case m.op <- struct{}{}:
		if err := m.gone(); err != nil {
			<-m.op
			return err
		}
		return nil
	case <-m.ended:
		return m.gone()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// blame turns an error of the API into one for people.
func (m *Machine) blame(ctx context.Context, err error) error {
	if err = m.explain(ctx, err); errors.Is(err, vmm.ErrEnded) {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fault.Wrap(fault.Internal, err, "%s misbehaves", displayName).By(fault.Driver).WithHint("aegis doctor")
}
