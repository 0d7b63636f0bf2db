package fake

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/xfeldman/aegisvm/internal/vmm"
)

// VM is a machine as its host sees it, whoever has adopted it. Its methods make
// things happen to it.
type VM struct {
	host  *Host
	spec  vmm.Spec
	saved *vmm.Saved // what it was started from, or nil
	found []byte     // its Boot.Memory
	clone bool       // it does not own its memory
	ctl   *wire
	net   *wire // nil without a network card

	stop  chan vmm.Exit // the first one ends the machine
	ended chan struct{} // closed when nothing is left; exit is set then
	exit  vmm.Exit

	mu      sync.Mutex
	faults  Faults
	paused  bool
	changed chan struct{} // closed and replaced when paused changes
	owner   *Machine      // nil while no process has it

	remember func() []byte // Boot.OnSave's
	memory   *memory       // held since the last save, or since a start on it; may be nil
	rested   bool          // it was saved and has not run since
	disks    []vmm.Disk    // as they are now

	trouble  error
	suffered chan struct{} // closed when trouble is set
}

func newVM(h *Host, spec vmm.Spec, f Faults) *VM {
	v := &VM{
		host: h, spec: spec, faults: f, disks: slices.Clone(spec.Disks),
		ctl:  newWire(false),
		stop: make(chan vmm.Exit, 1), ended: make(chan struct{}), changed: make(chan struct{}),
		suffered: make(chan struct{}),
	}
	if spec.Network {
		v.net = newWire(true)
	}
	return v
}

// Die ends the VMM from outside.
func (v *VM) Die(detail string) { v.end(vmm.Exit{Reason: vmm.Died, Detail: detail}) }

// Panic ends the guest's kernel, whose last line is detail.
func (v *VM) Panic(detail string) { v.end(vmm.Exit{Reason: vmm.Panicked, Detail: detail}) }

// PowerOff ends the guest in good order.
func (v *VM) PowerOff() { v.end(vmm.Exit{Reason: vmm.PoweredOff}) }

// Suffer lets the host fail the guest, which goes on. Machine.Trouble tells of err.
func (v *VM) Suffer(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.trouble == nil {
		close(v.suffered)
	}
	v.trouble = err
}

// Inject replaces what goes wrong with this machine from now on. Start, StartDelay
// and the times counted from Start have no effect any more.
func (v *VM) Inject(f Faults) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.faults = f
}

// Paused tells whether the vCPUs stand.
func (v *VM) Paused() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.paused
}

// Spec returns what the machine was started with.
func (v *VM) Spec() vmm.Spec { return v.spec }

// Disks returns the machine's disks as they are now, forked or not.
func (v *VM) Disks() []vmm.Disk {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.disks)
}

func (v *VM) now() Faults {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.faults
}

func (v *VM) end(e vmm.Exit) {
	select {
	case v.stop <- e:
	default: // it ends for another reason
	}
}

// adopt gives the machine to a new owner; nil if it has one.
func (v *VM) adopt() *Machine {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.owner != nil {
		return nil
	}
	v.owner = &Machine{vm: v, op: make(chan struct{}, 1), released: make(chan struct{})}
	return v.owner
}

// lose takes the machine from its owner.
func (v *VM) lose() {
	v.mu.Lock()
	owner := v.owner
	v.mu.Unlock()
	if owner != nil {
		owner.Release()
	}
}

func (v *VM) setPaused(paused bool) {
	v.mu.Lock()
	v.paused = paused
	if !paused {
		v.rested = false
		v.memory.spoil()
		v.memory = nil
	}
	close(v.changed)
	v.changed = make(chan struct{})
	v.mu.Unlock()
	v.ctl.setPaused(paused)
	if v.net != nil {
		v.net.setPaused(paused)
	}
}

// run is the life of the machine.
func (v *VM) run() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	guest := make(chan vmm.Exit, 1)
	go func() { guest <- v.runGuest(ctx) }()
	f := v.now()
	var exit vmm.Exit
	select {
	case exit = <-v.stop:
	case <-after(f.DieAfter):
		exit = vmm.Exit{Reason: vmm.Died, Detail: "a fault was injected"}
	case <-after(f.PanicAfter):
		exit = vmm.Exit{Reason: vmm.Panicked, Detail: "Kernel panic - not syncing: a fault was injected"}
	case exit = <-guest:
		guest <- exit
		exit = v.whenRunning(exit)
	}
	cancel()
	v.ctl.end()
	if v.net != nil {
		v.net.end()
	}
	<-guest
	v.host.mu.Lock()
	delete(v.host.vms, v.spec.Dir)
	v.host.mu.Unlock()
	v.exit = exit
	v.mu.Lock()
	v.memory.free()
	v.mu.Unlock()
	close(v.ended)
}

// whenRunning holds back the end of a guest that is paused.
func (v *VM) whenRunning(exit vmm.Exit) vmm.Exit {
	for {
		v.mu.Lock()
		paused, changed := v.paused, v.changed
		v.mu.Unlock()
		if !paused {
			return exit
		}
		select {
		case <-changed:
		case exit = <-v.stop:
			return exit
		}
	}
}

func (v *VM) runGuest(ctx context.Context) vmm.Exit {
	f := v.now()
	if f.BootHang {
		return Idle(ctx, Boot{})
	}
	if f.BootDelay > 0 {
		select {
		case <-time.After(f.BootDelay):
		case <-ctx.Done():
			return vmm.Exit{}
		}
	}
	for v.saved != nil { // nothing of a restored machine runs before it is resumed
		v.mu.Lock()
		paused, changed := v.paused, v.changed
		v.mu.Unlock()
		if !paused {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return vmm.Exit{}
		}
	}
	b := Boot{Spec: v.spec, Saved: v.saved, Memory: v.found, Port: &Port{wire: v.ctl}, vm: v}
	if v.net != nil {
		b.Network = &Port{wire: v.net}
	}
	return v.host.guest(ctx, b)
}

// after is time.After, or never for 0.
func after(d time.Duration) <-chan time.Time {
	if d <= 0 {
		return nil
	}
	return time.After(d)
}
