package fake

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// Boot is what a guest finds when it begins.
type Boot struct {
	Spec    vmm.Spec
	Saved   *vmm.Saved // what it was started from, or nil
	Memory  []byte     // what OnSave's function returned when that was saved
	Port    *Port      // the byte pipe to the host
	Network *Port      // frames, each after its length as u32 big-endian; nil without a card

	vm *VM
}

// OnSave registers what tells the guest's memory: a function that is called when
// the machine is saved, which is then paused. It returns all that the guest wants
// to find in Boot.Memory again. Without one that is what it found itself.
func (b *Boot) OnSave(memory func() []byte) {
	b.vm.mu.Lock()
	defer b.vm.mu.Unlock()
	b.vm.remember = memory
}

// Guest is the code inside a machine. It returns when ctx ends, or earlier to end
// the machine.
type Guest func(ctx context.Context, b Boot) vmm.Exit

// Idle is a guest that does nothing.
func Idle(ctx context.Context, _ Boot) vmm.Exit {
	<-ctx.Done()
	return vmm.Exit{Reason: vmm.PoweredOff}
}

// Host is the machine that the machines run on. It outlives its drivers as a real
// one outlives the daemon.
type Host struct {
	guest Guest

	mu      sync.Mutex
	faults  Faults
	version string
	saves   int
	vms     map[string]*VM // by Spec.Dir
}

// NewHost returns a host whose machines run guest; nil is Idle.
func NewHost(guest Guest) *Host {
	if guest == nil {
		guest = Idle
	}
	return &Host{guest: guest, version: "1", vms: map[string]*VM{}}
}

// Driver returns a driver of this host: one for each life of the daemon.
func (h *Host) Driver() *Driver { return &Driver{host: h} }

// Inject replaces what goes wrong with machines that start from now on.
func (h *Host) Inject(f Faults) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults = f
}

// Upgrade replaces the version of the VMM: what was saved under another is stale.
func (h *Host) Upgrade(version string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.version = version
}

func (h *Host) identity() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return driverName + " " + h.version
}

// shape is the part of an identity that is a machine's own.
func shape(s *vmm.Spec) string {
	return fmt.Sprintf("; x%d; %v; %d disks", s.VCPUs, s.Memory, len(s.Disks))
}

// VMs returns the machines that run, in no order.
func (h *Host) VMs() []*VM {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]*VM, 0, len(h.vms))
	for _, v := range h.vms {
		all = append(all, v)
	}
	return all
}

// VM returns the machine that runs with the given Spec.ID, or nil.
func (h *Host) VM(id string) *VM {
	for _, v := range h.VMs() {
		if v.spec.ID == id {
			return v
		}
	}
	return nil
}

// Restart makes the present drivers lose all machines, as the daemon's death does.
// The machines go on.
func (h *Host) Restart() {
	for _, v := range h.VMs() {
		v.lose()
	}
}

const driverName = "fake"

// Driver implements vmm.Driver.
type Driver struct{ host *Host }

// Info implements vmm.Driver.
func (d *Driver) Info() vmm.Info {
	return vmm.Info{
		Name: driverName, Version: "1", Accel: "none", Isolation: vmm.None,
		Abilities: vmm.Abilities{Pause: true, Save: true, Fork: true}, Why: "the in-memory driver of tests",
		Identity: d.host.identity(),
	}
}

// Start implements vmm.Driver.
func (d *Driver) Start(ctx context.Context, spec vmm.Spec, src vmm.Source) (vmm.Machine, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	h := d.host
	h.mu.Lock()
	faults := h.faults
	h.mu.Unlock()
	if err := wait(ctx, faults.StartDelay); err != nil {
		return nil, err
	}
	if faults.Start != nil {
		return nil, faults.Start
	}
	v := newVM(h, spec, faults)
	if from, ok := src.(vmm.Restore); ok {
		if faults.Restore != nil {
			return nil, faults.Restore
		}
		if err := v.restore(&from); err != nil {
			return nil, err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.vms[spec.Dir] != nil {
		v.memory.free()
		return nil, fault.New(fault.Conflict, "a machine runs in %s", spec.Dir)
	}
	h.vms[spec.Dir] = v
	m := v.adopt()
	go v.run() //nolint:gosec,contextcheck // a context bounds a call, never a machine; the machine's ended tells the end
	return m, nil
}

// wait waits for some time, or for ctx.
func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Adopt implements vmm.Driver.
func (d *Driver) Adopt(ctx context.Context, dir string) (vmm.Machine, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	d.host.mu.Lock()
	v := d.host.vms[dir]
	d.host.mu.Unlock()
	if v == nil {
		return nil, fmt.Errorf("%w: nothing runs in %s", vmm.ErrEnded, dir)
	}
	if err := v.now().Adopt; err != nil {
		return nil, err
	}
	m := v.adopt()
	if m == nil {
		return nil, fault.New(fault.Conflict, "another process has the machine in %s", dir)
	}
	if err := m.gone(); err != nil {
		return nil, err
	}
	return m, nil
}

var errReleased = errors.New("the machine was given up by this process")
