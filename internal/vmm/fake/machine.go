package fake

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// Machine is one process's hold on a VM. It implements vmm.Machine, vmm.Saver and
// vmm.DiskForker.
type Machine struct {
	vm       *VM
	op       chan struct{} // held by Pause, Resume and Save, one at a time
	once     sync.Once
	released chan struct{}
}

// VM returns the machine as its host sees it.
func (m *Machine) VM() *VM { return m.vm }

// Release gives the machine up without ending it, as the end of this process
// would. Connections break.
func (m *Machine) Release() {
	m.once.Do(func() {
		close(m.released)
		m.vm.ctl.drop()
		if m.vm.net != nil {
			m.vm.net.drop()
		}
		m.vm.mu.Lock()
		defer m.vm.mu.Unlock()
		m.vm.memory.spoil() // somebody else decides when it goes on
		m.vm.memory = nil
		m.vm.owner = nil
	})
}

// gone returns why the machine takes no more calls, or nil.
func (m *Machine) gone() error {
	select {
	case <-m.vm.ended:
		return fmt.Errorf("%w: %v", vmm.ErrEnded, m.vm.exit)
	case <-m.released:
		return errReleased
	default:
		return nil
	}
}

// Wait implements vmm.Machine.
func (m *Machine) Wait(ctx context.Context) (vmm.Exit, error) {
	select {
	case <-m.vm.ended:
		return m.vm.exit, nil
	default:
	}
	select {
	case <-m.vm.ended:
		return m.vm.exit, nil
	case <-m.released:
		return vmm.Exit{}, errReleased
	case <-ctx.Done():
		return vmm.Exit{}, context.Cause(ctx)
	}
}

// Kill implements vmm.Machine.
func (m *Machine) Kill(ctx context.Context) error {
	if err := m.gone(); errors.Is(err, vmm.ErrEnded) {
		return nil
	} else if err != nil {
		return err
	}
	if err := m.vm.now().Kill; err != nil {
		return err
	}
	m.vm.end(vmm.Exit{Reason: vmm.Killed})
	_, err := m.Wait(ctx)
	return err
}

// Pause implements vmm.Machine.
func (m *Machine) Pause(ctx context.Context) error {
	return m.operate(ctx, func(f Faults) error {
		if f.Pause != nil {
			return f.Pause
		}
		m.vm.setPaused(true)
		return nil
	})
}

// Resume implements vmm.Machine.
func (m *Machine) Resume(ctx context.Context) error {
	return m.operate(ctx, func(f Faults) error {
		if f.Resume != nil {
			return f.Resume
		}
		m.vm.setPaused(false)
		return nil
	})
}

// Paused implements vmm.Machine.
func (m *Machine) Paused(ctx context.Context) (paused bool, err error) {
	err = m.operate(ctx, func(Faults) error {
		paused = m.vm.Paused()
		return nil
	})
	return paused, err
}

// operate performs one operation after those before it.
func (m *Machine) operate(ctx context.Context, do func(Faults) error) error {
	if err := errors.Join(m.gone(), context.Cause(ctx)); err != nil {
		return err
	}
	select {
	case m.op <- struct{}{}:
		defer func() { <-m.op }()
	case <-m.vm.ended:
		return m.gone()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := m.gone(); err != nil {
		return err
	}
	return do(m.vm.now())
}

// DialGuest implements vmm.Machine.
func (m *Machine) DialGuest(ctx context.Context) (net.Conn, error) {
	return m.dial(ctx, m.vm.ctl, m.vm.now().Dial)
}

// AttachNetwork implements vmm.Machine.
func (m *Machine) AttachNetwork(ctx context.Context) (net.Conn, error) {
	if m.vm.net == nil && m.gone() == nil {
		return nil, fault.New(fault.Invalid, "the machine has no network card")
	}
	return m.dial(ctx, m.vm.net, m.vm.now().Attach)
}

func (m *Machine) dial(ctx context.Context, w *wire, injected error) (net.Conn, error) {
	if err := errors.Join(m.gone(), context.Cause(ctx), injected); err != nil {
		return nil, err
	}
	select {
	case <-w.free:
		if err := m.gone(); err != nil {
			w.free <- struct{}{}
			return nil, err
		}
		return w.connect(), nil
	case <-m.vm.ended:
		return nil, m.gone()
	case <-m.released:
		return nil, m.gone()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Trouble implements vmm.Troubled.
func (m *Machine) Trouble() error {
	m.vm.mu.Lock()
	defer m.vm.mu.Unlock()
	return m.vm.trouble
}

// Suffered implements vmm.Troubled.
func (m *Machine) Suffered() <-chan struct{} { return m.vm.suffered }

// Usage implements vmm.Machine.
func (m *Machine) Usage() (vmm.Usage, error) {
	if err := m.gone(); err != nil {
		return vmm.Usage{}, err
	}
	return vmm.Usage{Memory: min(m.vm.spec.Memory, 64*size.MiB)}, nil
}
