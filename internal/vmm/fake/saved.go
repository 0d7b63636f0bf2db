package fake

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/qcow2"
	"github.com/xfeldman/aegisvm/internal/vmm/ram"
)

// stateName is the file that a save writes.
const stateName = "state"

// state is the content of that file.
type state struct {
	ID     string // of the machine that was saved
	Save   int    // no two saves of a host have one state
	Memory []byte // of one that does not own its memory
}

// memory is a guest's memory, as it was told. It implements vmm.Memory.
type memory struct {
	host    *Host
	of      string // digest of the state that it was saved with
	bytes   []byte
	custody ram.Custody
}

func (m *memory) free() {
	if m != nil {
		m.custody.Free()
	}
}

func (m *memory) spoil() {
	if m != nil {
		m.custody.Spoil()
	}
}

// Store implements vmm.Memory.
func (m *memory) Store(ctx context.Context, path string) (vmm.File, error) {
	f := m.host.now()
	if err := errors.Join(m.custody.Check(), context.Cause(ctx), f.Store); err != nil {
		return vmm.File{}, err
	}
	return writeFile(path, m.bytes, f.Damage)
}

// Copy implements vmm.MemoryCopier.
func (m *memory) Copy(ctx context.Context, limit size.Bytes) (vmm.Memory, error) {
	if err := errors.Join(m.custody.Check(), context.Cause(ctx)); err != nil {
		return nil, err
	}
	if size.Bytes(len(m.bytes)) > limit {
		return nil, nil //nolint:nilnil // as the contract says
	}
	c := &memory{host: m.host, of: m.of, bytes: bytes.Clone(m.bytes)}
	c.free()
	return c, nil
}

// Close implements vmm.Memory.
func (m *memory) Close() error {
	m.custody.Close()
	return nil
}

// count counts the saves.
func (h *Host) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.saves++
	return h.saves
}

func (h *Host) now() Faults {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.faults
}

// LoadMemory implements vmm.MemoryLoader.
func (d *Driver) LoadMemory(ctx context.Context, s vmm.Saved) (vmm.Memory, error) {
	if err := errors.Join(context.Cause(ctx), d.host.now().Load); err != nil {
		return nil, err
	}
	b, err := readFile(s.Memory)
	if err != nil {
		return nil, err
	}
	m := &memory{host: d.host, of: s.State.Digest, bytes: b}
	m.free()
	return m, nil
}

// restore makes a VM that has not begun one that starts from a saved machine.
func (v *VM) restore(from *vmm.Restore) error {
	s := from.Saved
	if is := v.host.identity() + shape(&v.spec); s.Driver != driverName || s.Identity != is {
		return fault.Wrap(fault.Conflict, fmt.Errorf("%w: it is of %q, not %q", vmm.ErrStale, s.Identity, is), "").By(fault.Driver).
			WithHint("it starts without its memory")
	}
	b, err := readFile(s.State)
	if err != nil {
		return err
	}
	var st state
	if err := json.Unmarshal(b, &st); err != nil {
		return errDamaged(err)
	}
	given, _ := from.Memory.(*memory)
	switch {
	case s.Whole != (st.Memory != nil), s.Whole && from.Memory != nil, from.Memory != nil && (given == nil || given.of != s.State.Digest):
		return fault.New(fault.Invalid, "a memory that is not of this saved machine")
	case s.Whole:
		v.found = st.Memory
	case given == nil:
		if v.found, err = readFile(s.Memory); err != nil {
			return err
		}
	case from.Own:
		if err := given.custody.Take(); err != nil {
			return err
		}
		v.found, v.memory = given.bytes, given
	default:
		if err := given.custody.Share(func() error { return nil }); err != nil {
			return err
		}
		v.found, v.clone = given.bytes, true
	}
	v.found = append([]byte{}, v.found...)
	v.saved = &s
	v.setPaused(true)
	return nil
}

// Save implements vmm.Saver.
func (m *Machine) Save(ctx context.Context, dest vmm.Dest) (vmm.Saved, vmm.Memory, error) {
	var s vmm.Saved
	var mem *memory
	err := m.operate(ctx, func(f Faults) (err error) {
		s, mem, err = m.save(ctx, dest, f)
		return err
	})
	if err != nil || mem == nil {
		return s, nil, err
	}
	return s, mem, nil
}

func (m *Machine) save(ctx context.Context, dest vmm.Dest, f Faults) (vmm.Saved, *memory, error) {
	v := m.vm
	v.mu.Lock()
	paused, rested, remember := v.paused, v.rested, v.remember
	v.mu.Unlock()
	switch {
	case f.Save != nil:
		return vmm.Saved{}, nil, f.Save
	case !paused:
		return vmm.Saved{}, nil, fault.New(fault.Conflict, "a machine that runs cannot be saved")
	case rested:
		return vmm.Saved{}, nil, fault.New(fault.Conflict, "the machine was saved at this pause; it must run before it is saved again")
	}
	if err := m.pass(ctx, f); err != nil {
		return vmm.Saved{}, nil, err
	}
	holds := v.found
	if remember != nil {
		holds = remember()
	}
	st := state{ID: v.spec.ID, Save: v.host.count()}
	if v.clone {
		st.Memory = append([]byte{}, holds...)
	}
	b, err := json.Marshal(st)
	if err != nil {
		return vmm.Saved{}, nil, err
	}
	s := vmm.Saved{Driver: driverName, Identity: v.host.identity() + shape(&v.spec), Whole: v.clone}
	if s.State, err = writeFile(filepath.Join(dest.Dir, stateName), b, v.host.now().Damage); err != nil {
		return vmm.Saved{}, nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.rested = true
	if v.clone {
		return s, nil, nil
	}
	v.memory.spoil()
	v.memory = &memory{host: v.host, of: s.State.Digest, bytes: append([]byte{}, holds...)}
	return s, v.memory, nil
}

// pass spends the time of a save.
func (m *Machine) pass(ctx context.Context, f Faults) error {
	if f.SaveDies {
		m.vm.Die("a fault was injected")
		<-m.vm.ended
		return m.gone()
	}
	if f.SaveDelay <= 0 {
		return nil
	}
	select {
	case <-time.After(f.SaveDelay):
		return nil
	case <-m.vm.ended:
		return m.gone()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// ForkDisk implements vmm.DiskForker. Disks have no content here: the overlay is a
// file without data.
func (m *Machine) ForkDisk(ctx context.Context, name, overlay string) error {
	return m.operate(ctx, func(f Faults) error {
		v := m.vm
		v.mu.Lock()
		defer v.mu.Unlock()
		switch {
		case f.Fork != nil:
			return f.Fork
		case !v.paused || v.rested:
			return fault.New(fault.Conflict, "a disk is forked while its machine is paused, and before that is saved")
		}
		for i, d := range v.disks {
			if d.Name != name || d.ReadOnly {
				continue
			}
			under := vmm.Layer{Path: d.Path, Format: d.Format}
			bytes, err := qcow2.DiskSize(d.Path, d.Format)
			if err != nil {
				bytes = 8 * size.GiB // tests name disks that are not there
			}
			if err := qcow2.Create(overlay, bytes, under); err != nil {
				return err
			}
			d.Path, d.Format, d.Backing = overlay, vmm.QCOW2, append([]vmm.Layer{under}, d.Backing...)
			v.disks[i] = d
			return nil
		}
		return fault.New(fault.NotFound, "the machine has no writable disk %q", name)
	})
}

// writeFile writes a file of a saved machine, where nothing may be.
func writeFile(path string, b []byte, damage bool) (vmm.File, error) {
	f := vmm.File{Path: path, Size: size.Bytes(len(b)), Digest: digest(b)}
	if damage {
		b = bytes.Repeat([]byte{'#'}, len(b))
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return vmm.File{}, err
	}
	_, err = file.Write(b)
	if err = errors.Join(err, file.Close()); err != nil {
		return vmm.File{}, errors.Join(err, os.Remove(path))
	}
	return f, nil
}

func readFile(f vmm.File) ([]byte, error) {
	b, err := os.ReadFile(f.Path)
	if err != nil {
		return nil, errDamaged(err)
	}
	if digest(b) != f.Digest {
		return nil, errDamaged(fmt.Errorf("%s is changed", f.Path))
	}
	return b, nil
}

func errDamaged(err error) error {
	return fault.Wrap(fault.Unavailable, fmt.Errorf("%w: %w", vmm.ErrDamaged, err), "").By(fault.Host).
		WithHint("it starts without its memory")
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
