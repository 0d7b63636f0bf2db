package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/ram"
)

// memoryName is how the kernel lists the memory of guests.
const memoryName = "aegis-ram"

// memory is a guest's memory: a memfd. It implements vmm.Memory.
type memory struct {
	file    *os.File
	of      string // digest of the state that it was saved with
	custody ram.Custody
}

// clone returns a descriptor for one more machine that maps the memory
// copy-on-write.
func (m *memory) clone() (*os.File, error) {
	if err := m.custody.Share(func() error { return seal(m.file) }); err != nil {
		return nil, err
	}
	return duplicate(m.file)
}

// take returns a descriptor for a machine that has the memory for its own until
// free or spoil is called.
func (m *memory) take() (*os.File, error) {
	if err := m.custody.Take(); err != nil {
		return nil, err
	}
	f, err := duplicate(m.file)
	if err != nil {
		m.free()
	}
	return f, err
}

// free says that the machine that held the memory has ended. m may be nil.
func (m *memory) free() {
	if m != nil {
		m.custody.Free()
	}
}

// spoil says that the machine that held the memory goes on. m may be nil.
func (m *memory) spoil() {
	if m != nil {
		m.custody.Spoil()
	}
}

// Store implements vmm.Memory.
func (m *memory) Store(ctx context.Context, path string) (vmm.File, error) {
	if err := m.custody.Check(); err != nil {
		return vmm.File{}, err
	}
	f, err := ram.Store(ctx, m.file, path)
	if err != nil {
		return vmm.File{}, storeError(ctx, err)
	}
	if err := m.custody.Check(); err != nil { // it went on meanwhile
		return vmm.File{}, errors.Join(err, os.Remove(path))
	}
	return f, nil
}

// splitting returns the state in from, whose memory goes to this one.
func (m *memory) splitting(from io.Reader) (*split, error) {
	fi, err := m.file.Stat()
	if err != nil {
		return nil, err
	}
	return newSplit(from, m.file, fi.Size()), nil
}

// Copy implements vmm.MemoryCopier.
func (m *memory) Copy(ctx context.Context, limit size.Bytes) (vmm.Memory, error) {
	if err := m.custody.Check(); err != nil {
		return nil, err
	}
	if !m.custody.Held() {
		return m.shared()
	}
	fi, err := m.file.Stat()
	if err != nil {
		return nil, err
	}
	c, err := newMemory(size.Bytes(fi.Size()))
	if err != nil {
		return nil, err
	}
	done, err := ram.Copy(ctx, m.file, c.file, limit)
	if err == nil {
		err = m.custody.Check() // or it went on meanwhile
	}
	if err != nil || !done {
		closeAll(c.file)
		return nil, err
	}
	c.of = m.of
	c.free()
	return c, nil
}

// shared returns the memory again, which no machine holds: it is sealed, and serves clones of both.
func (m *memory) shared() (vmm.Memory, error) {
	f, err := m.clone()
	if err != nil {
		return nil, err
	}
	c := &memory{file: f, of: m.of}
	c.free()
	return c, c.custody.Share(func() error { return nil })
}

// Close implements vmm.Memory.
func (m *memory) Close() error {
	if !m.custody.Close() {
		return nil
	}
	return m.file.Close()
}

// newMemory makes an empty memory that is held.
func newMemory(bytes size.Bytes) (*memory, error) {
	f, err := memoryFile(memoryName)
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(int64(bytes)); err != nil {
		closeAll(f)
		return nil, err
	}
	return &memory{file: f}, nil
}

// memory opens the memory of a process, which is mapped shared.
func (p *process) memory(descriptor int) (*memory, error) {
	f, err := os.OpenFile(fmt.Sprintf("/proc/%d/fd/%d", p.pid, descriptor), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	// It was this very process, if that still lives.
	if p.zombie() {
		closeAll(f)
		return nil, vmm.ErrEnded
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0); err != nil {
		closeAll(f)
		return nil, fmt.Errorf("descriptor %d of QEMU is not its memory: %w", descriptor, err)
	}
	return &memory{file: f}, nil
}

// memorySize returns the size of the memory of a process.
func (p *process) memorySize(descriptor int) (size.Bytes, error) {
	fi, err := os.Stat(fmt.Sprintf("/proc/%d/fd/%d", p.pid, descriptor))
	if err != nil {
		return 0, err
	}
	return size.Bytes(fi.Size()), nil
}

// LoadMemory implements vmm.MemoryLoader.
func (d *Driver) LoadMemory(ctx context.Context, s vmm.Saved) (vmm.Memory, error) {
	if s.Driver != driverName || s.Whole {
		return nil, errStale("it is not one whose memory this driver keeps in a file")
	}
	image, err := ram.Open(s.Memory)
	if err != nil {
		return nil, loadError(ctx, err)
	}
	defer image.Close() //nolint:errcheck // only read
	m, err := newMemory(image.Size())
	if err != nil {
		return nil, err
	}
	if err := image.Load(ctx, m.file); err != nil {
		closeAll(m.file)
		return nil, loadError(ctx, err)
	}
	m.of = s.State.Digest
	m.free()
	return m, nil
}
