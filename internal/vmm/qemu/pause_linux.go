package qemu

import (
	"context"
	"errors"
	"fmt"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// QEMU's words for the states of a machine.
const (
	running     = "running"
	paused      = "paused"
	postmigrate = "postmigrate" // paused, and saved: it cannot be saved again before it runs
	inmigrate   = "inmigrate"   // waiting for a saved machine
)

// Pause implements vmm.Machine.
func (m *Machine) Pause(ctx context.Context) error { return m.setPaused(ctx, true) }

// Resume implements vmm.Machine.
func (m *Machine) Resume(ctx context.Context) error { return m.setPaused(ctx, false) }

// Paused implements vmm.Machine.
func (m *Machine) Paused(ctx context.Context) (bool, error) {
	if err := m.begin(ctx); err != nil {
		return false, err
	}
	defer func() { <-m.op }()
	is, err := m.status(ctx)
	if err != nil {
		return false, m.blame(ctx, err)
	}
	m.paused = is != running // QEMU may have stopped them by itself
	return m.paused, nil
}

func (m *Machine) setPaused(ctx context.Context, pause bool) error {
	if err := m.begin(ctx); err != nil {
		return err
	}
	defer func() { <-m.op }()
	if m.paused == pause {
		return nil
	}
	do, undo, want := "cont", "stop", running
	if pause {
		do, undo, want = "stop", "cont", paused
	} else {
		m.hold(nil).spoil()
	}
	err := m.monitor().execute(ctx, do, nil, nil)
	if err == nil {
		err = m.expect(ctx, want)
	}
	if err != nil {
		// QEMU works in order: whatever becomes of the first command, after this one
		// the machine is as it was.
		_, _, _ = m.monitor().send(undo, nil, nil)
		return m.blame(ctx, err)
	}
	m.paused = pause
	return nil
}

// begin waits for the operations before this one.
func (m *Machine) begin(ctx context.Context) error {
	if err := m.gone(); err != nil {
		return err
	}
	if err := ended(ctx); err != nil {
		return err
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

func (m *Machine) expect(ctx context.Context, want string) error {
	is, err := m.status(ctx)
	if err != nil {
		return err
	}
	if is != want {
		return fmt.Errorf("QEMU's machine is %s, not %s", is, want)
	}
	return nil
}

// blame turns an error of the monitor into one for people.
func (m *Machine) blame(ctx context.Context, err error) error {
	if err = m.explain(ctx, err); errors.Is(err, vmm.ErrEnded) {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fault.Wrap(fault.Internal, err, "QEMU misbehaves").By(fault.Driver).WithHint("aegis doctor")
}
