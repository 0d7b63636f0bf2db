package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/ram"
)

// load is the start of one machine from a saved one: what was opened for it.
type load struct {
	saved *vmm.Saved
	shape string // of the machine that is to be
	state *opened

	memory *os.File   // what the VMM will be mapped to, until it is handed over; nil for fresh
	clone  bool       // copy-on-write
	taken  *memory    // given by the caller for the machine's own, until the machine has it
	filled *memory    // to be filled from image
	image  *ram.Image // nil where nothing is to be filled
}

// restore starts a machine from a saved one.
func (d *Driver) restore(ctx context.Context, spec *vmm.Spec, from *vmm.Restore) (*Machine, error) {
	l, err := d.openLoad(spec, from)
	if err != nil {
		return nil, loadError(ctx, err)
	}
	defer l.close()
	m, err := l.run(ctx, d, spec)
	if err != nil {
		return nil, loadError(ctx, err)
	}
	return m, nil
}

// openLoad looks at what there is before anything is started.
func (d *Driver) openLoad(spec *vmm.Spec, from *vmm.Restore) (*load, error) {
	r := d.recipe(spec)
	l := &load{saved: &from.Saved, shape: r.shape()}
	if l.saved.Driver != driverName {
		return nil, errStale("it is of the driver %q", l.saved.Driver)
	}
	// The version is compared with that of the process that will run.
	if !fits(identity(d.version, l.shape), identity(d.version, shapeIn(l.saved.Identity))) {
		return nil, errStale("it is of %q, not %q", l.saved.Identity, l.shape)
	}
	var err error
	if l.state, err = openState(&l.saved.State, l.saved.Whole); err != nil {
		return nil, err
	}
	err = l.openMemory(from)
	if err == nil && l.memory != nil {
		err = l.checkMemory(size.Bytes(r.mebibytes()) * size.MiB)
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// openMemory decides what the machine will run on.
func (l *load) openMemory(from *vmm.Restore) (err error) {
	given, ours := from.Memory.(*memory)
	switch {
	case from.Memory != nil && (!ours || l.saved.Whole || given.of != l.saved.State.Digest):
		return fault.New(fault.Invalid, "a memory that is not of this saved machine")
	case l.saved.Whole:
		return nil // fresh, and QEMU fills it
	case ours && from.Own:
		if l.memory, err = given.take(); err == nil {
			l.taken = given
		}
		return err
	case ours:
		l.clone = true
		l.memory, err = given.clone()
		return err
	}
	if l.image, err = ram.Open(l.saved.Memory); err != nil {
		return err
	}
	if l.filled, err = newMemory(l.image.Size()); err != nil {
		return err
	}
	l.memory, err = duplicate(l.filled.file)
	return err
}

func (l *load) checkMemory(want size.Bytes) error {
	fi, err := l.memory.Stat()
	if err == nil && size.Bytes(fi.Size()) != want {
		err = errStale("it has %v of memory, not %v", size.Bytes(fi.Size()), want)
	}
	return err
}

// close gives up what the machine has not taken over.
func (l *load) close() {
	closeAll(l.memory)
	_ = l.state.Close() // only read
	if l.image != nil {
		_ = l.image.Close() // only read
	}
	if l.filled != nil {
		_ = l.filled.Close() // the machine has its own descriptor
	}
	l.taken.free()
}

// run starts the VMM, fills the memory meanwhile, and then has the state loaded.
func (l *load) run(ctx context.Context, d *Driver, spec *vmm.Spec) (*Machine, error) {
	var filling sync.WaitGroup
	var filled error
	until, stop := context.WithCancel(ctx)
	if l.image != nil {
		filling.Go(func() { filled = l.image.Load(until, l.filled.file) })
	}
	from := origin{restore: true, clone: l.clone, filled: l.clone || l.taken != nil, memory: l.memory}
	l.memory = nil // start closes it
	m, err := d.start(ctx, spec, from, func(ctx context.Context, m *Machine) error {
		m.hold(l.taken) // given back at the machine's end, which may come at any time
		if is := identity(m.monitor().version, l.shape); !fits(is, l.saved.Identity) {
			return errStale("it is of %q, not %q", l.saved.Identity, is)
		}
		if filling.Wait(); filled != nil {
			return filled
		}
		if err := m.load(ctx, l); err != nil {
			return err
		}
		return m.growDisks(ctx, l.saved.Disks)
	})
	stop()
	filling.Wait()
	if err == nil {
		l.taken = nil
	}
	return m, err
}

// errRefused marks what QEMU did with a state that is not damaged.
var errRefused = errors.New("QEMU refuses the state")

// load lets QEMU load the state.
func (m *Machine) load(ctx context.Context, l *load) error {
	r, w, err := newPipe()
	if err != nil {
		return err
	}
	fed := make(chan error, 1)
	go func() {
		err := feed(ctx, w, l.state, content{&l.saved.State, l.saved.Whole, startsBare(l.shape)})
		closeAll(w) // QEMU fails where something is missing
		fed <- err
	}()
	mon := m.monitor()
	err = mon.migrate(ctx, "migrate-incoming", !l.state.left, r)
	if err == nil {
		err = mon.finishMigration(ctx)
	}
	if err != nil {
		closeAll(w) // ends the feeding
	}
	if broken := <-fed; errors.Is(broken, vmm.ErrDamaged) || broken != nil && err == nil {
		return broken
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	m.paused = true
	if err := m.expect(ctx, paused); err != nil {
		return err
	}
	return m.activateDisks(ctx)
}

// activateDisks makes a machine that was loaded the user of its disks. From QEMU 10.0 on that
// happens only when it is resumed, and until then a disk can neither grow nor be forked;
// before, loading did it, and there was no such command.
func (m *Machine) activateDisks(ctx context.Context) error {
	err := m.monitor().execute(ctx, "blockdev-set-active", map[string]any{"active": true}, nil)
	if refused, ok := errors.AsType[*qmpError](err); ok && refused.Class == unknownCommand {
		return nil
	}
	return err
}

// growDisks tells the guest the size of those disks that are larger than known, in the
// machine that was saved.
func (m *Machine) growDisks(ctx context.Context, known map[string]size.Bytes) error {
	for name, bytes := range m.folder.model.Disks {
		if known[name] == bytes {
			continue
		}
		if err := m.monitor().execute(ctx, "block_resize", map[string]any{"node-name": name, "size": bytes}, nil); err != nil {
			return fmt.Errorf("size of disk %s: %w", name, err)
		}
	}
	return nil
}
