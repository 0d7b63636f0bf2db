package cloudhypervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/host"
	"github.com/xfeldman/aegisvm/internal/vmm/ram"
)

// load is the start of one machine from a saved one: what was opened for it.
type load struct {
	driver *Driver
	saved  *vmm.Saved
	state  []byte

	memory *os.File   // what the VMM will be mapped to, until it is handed over
	clone  bool       // copy-on-write
	taken  *memory    // given by the caller for the machine's own, until the machine has it
	filled *os.File   // to be filled from image
	image  *ram.Image // nil where nothing is to be filled
}

// restore starts a machine from a saved one.
func (d *Driver) restore(ctx context.Context, spec *vmm.Spec, from *vmm.Restore) (*Machine, error) {
	l, err := d.openLoad(spec, from)
	if err != nil {
		return nil, loadError(ctx, err)
	}
	defer l.close()
	m, err := l.run(ctx, spec)
	if err != nil {
		return nil, loadError(ctx, err)
	}
	return m, nil
}

// openLoad looks at what there is before anything is started.
func (d *Driver) openLoad(spec *vmm.Spec, from *vmm.Restore) (*load, error) {
	r := d.recipe(spec)
	l := &load{driver: d, saved: &from.Saved}
	if l.saved.Driver != driverName {
		return nil, errStale("it is of the driver %q", l.saved.Driver)
	}
	if is := identity(d.version, r.shape()); is != l.saved.Identity {
		return nil, errStale("it is of %q, not %q", l.saved.Identity, is)
	}
	var err error
	if l.state, err = readState(&l.saved.State); err != nil {
		return nil, err
	}
	err = l.openMemory(from)
	if err == nil {
		err = l.checkMemory(size.Bytes(r.bytes()))
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// readState reads a state, and checks that it is what was saved.
func readState(want *vmm.File) ([]byte, error) {
	f, err := os.Open(want.Path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", vmm.ErrDamaged, err)
	} else if err != nil {
		return nil, err
	}
	defer host.CloseAll(f)
	b, err := io.ReadAll(io.LimitReader(f, maxState))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", vmm.ErrDamaged, err)
	}
	if size.Bytes(len(b)) != want.Size || digest(b) != want.Digest {
		return nil, fmt.Errorf("%w: %s is changed", vmm.ErrDamaged, want.Path)
	}
	return b, nil
}

// openMemory decides what the machine will run on.
func (l *load) openMemory(from *vmm.Restore) (err error) {
	given, ours := from.Memory.(*memory)
	switch {
	case l.saved.Whole, from.Memory != nil && (!ours || given.of != l.saved.State.Digest):
		return fault.New(fault.Invalid, "a memory that is not of this saved machine")
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
	if l.filled, err = l.driver.room.newMemoryFile(l.image.Size()); err != nil {
		return err
	}
	l.memory, err = host.Duplicate(l.filled)
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
	host.CloseAll(l.memory, l.filled) // the machine has its own descriptor
	if l.image != nil {
		_ = l.image.Close() // only read
	}
	l.taken.free()
}

// run starts the VMM, fills the memory meanwhile, and then has the state loaded.
func (l *load) run(ctx context.Context, spec *vmm.Spec) (*Machine, error) {
	var filling sync.WaitGroup
	var filled error
	until, stop := context.WithCancel(ctx)
	if l.image != nil {
		filling.Go(func() { filled = l.image.Load(until, l.filled) })
	}
	from := origin{restore: true, clone: l.clone, filled: l.clone || l.taken != nil, memory: l.memory}
	l.memory = nil // start closes it
	m, err := l.driver.start(ctx, spec, from, func(m *Machine, ctx context.Context, r *recipe) error {
		m.hold(l.taken) // given back at the machine's end, which may come at any time
		if filling.Wait(); filled != nil {
			return filled
		}
		if err := m.load(ctx, r, l.state); err != nil {
			return err
		}
		return m.growDisks(ctx, r, l.saved.Disks)
	})
	stop()
	filling.Wait()
	if err == nil {
		l.taken = nil
	}
	return m, err
}

// load lets the VMM load a state, with a configuration that is made anew: that of the
// snapshot names another machine's files.
func (m *Machine) load(ctx context.Context, r *recipe, state []byte) error {
	dir := filepath.Join(m.ownDir(), loadDir)
	if err := m.driver.makeDir(dir); err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // it goes with the machine
	config, err := json.Marshal(r.config())
	if err != nil {
		return err
	}
	for name, b := range map[string][]byte{stateFile: state, configFile: config} {
		if err := m.driver.writeFile(filepath.Join(dir, name), b); err != nil {
			return err
		}
	}
	if err := m.api.put(ctx, "vm.restore", restoreConfig{"file://" + m.model.own(loadDir)}); err != nil {
		return err
	}
	is, err := m.state(ctx)
	if err == nil && is != statePaused {
		err = fmt.Errorf("a machine that was loaded is %s", is)
	}
	return err
}

// writeFile writes a file for the VMM to read.
func (d *Driver) writeFile(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, d.account.Give(f), f.Close())
}

// growDisks tells the guest the size of those disks that are larger than known, in the
// machine that was saved.
func (m *Machine) growDisks(ctx context.Context, r *recipe, known map[string]size.Bytes) error {
	for _, d := range r.Disks {
		if d.ReadOnly || known[d.Name] == d.Size {
			continue
		}
		err := m.api.put(ctx, "vm.resize-disk", resizeDisk{ID: d.Name, Size: int64(d.Size)})
		if refused, ok := errors.AsType[*refusal](err); ok {
			return errStale("disk %s is larger than it knew: %v", d.Name, refused)
		}
		if err != nil {
			return fmt.Errorf("size of disk %s: %w", d.Name, err)
		}
	}
	return nil
}

var _ vmm.MemoryLoader = (*Driver)(nil)
