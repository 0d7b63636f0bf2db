package cloudhypervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/host"
	"github.com/xfeldman/aegisvm/internal/vmm/ram"
)

const (
	// memoryName is how the kernel lists the memory of guests that is a memfd.
	memoryName = "aegis-ram"
	// memoryDir is a file system in memory. Files there can have a name, which those
	// of memfd_create cannot.
	memoryDir = "/dev/shm"
)

// room is what machines of this process may yet write to memoryDir. That has a limit, and a
// machine that meets it is killed by the kernel (SIGBUS), which nothing else would
// prevent: a guest's memory takes what it takes when it is written to. Its methods may be
// called together.
type room struct {
	mu       sync.Mutex
	promised size.Bytes
}

// change adds what a machine may write, or takes it away.
func (r *room) change(by size.Bytes) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.promised += by
}

// has tells whether there is room for so much more. What machines have written already is
// counted twice: rather too little than too much is promised.
func (r *room) has(bytes size.Bytes) bool {
	var st unix.Statfs_t
	if err := unix.Statfs(memoryDir, &st); err != nil || st.Type != unix.TMPFS_MAGIC {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	free := size.Bytes(st.Bavail) * size.Bytes(st.Bsize) //nolint:gosec // a size
	return r.promised+bytes <= free
}

// newMemoryFile makes empty memory for a guest: a file without a name, which can be
// given one where memoryDir has room for it.
func (r *room) newMemoryFile(bytes size.Bytes) (*os.File, error) {
	f, err := r.open(bytes)
	if err != nil { // a container's is small, or there is none
		f, err = host.MemoryFile(memoryName)
	}
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(int64(bytes)); err != nil {
		host.CloseAll(f)
		return nil, err
	}
	return f, nil
}

var errNoRoom = errors.New("no room")

func (r *room) open(bytes size.Bytes) (*os.File, error) {
	if !r.has(bytes) {
		return nil, errNoRoom
	}
	fd, err := unix.Open(memoryDir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: memoryDir, Err: err}
	}
	return os.NewFile(uintptr(fd), memoryName), nil
}

// inTmpfs tells whether memory is a file of memoryDir, and no memfd: those know seals.
func inTmpfs(f *os.File) bool {
	seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
	return err == nil && seals == unix.F_SEAL_SEAL
}

// memory is a guest's memory. It implements vmm.Memory and vmm.MemoryCopier.
type memory struct {
	file    *os.File
	of      string // digest of the state that it was saved with
	custody ram.Custody
	driver  *Driver
}

// clone returns a descriptor for one more machine that maps the memory
// copy-on-write.
func (m *memory) clone() (*os.File, error) {
	if err := m.custody.Share(m.close); err != nil {
		return nil, err
	}
	return host.Duplicate(m.file)
}

// close makes the memory unwritable for all VMMs. Those of another account may not open
// it for writing; from those of our own it is sealed, for which it has to be a memfd.
func (m *memory) close() error {
	if m.driver.account != nil {
		return errors.Join(m.file.Chown(os.Geteuid(), os.Getegid()), m.file.Chmod(0o444))
	}
	if !inTmpfs(m.file) {
		return host.Seal(m.file)
	}
	fi, err := m.file.Stat()
	if err != nil {
		return err
	}
	c, err := host.MemoryFile(memoryName)
	if err != nil {
		return err
	}
	if err = c.Truncate(fi.Size()); err == nil {
		_, err = ram.Copy(context.Background(), m.file, c, size.Bytes(fi.Size()))
	}
	if err == nil {
		err = host.Seal(c)
	}
	if err != nil {
		host.CloseAll(c)
		return err
	}
	host.CloseAll(m.file)
	m.file = c
	return nil
}

// take returns a descriptor for a machine that has the memory for its own until
// free or spoil is called.
func (m *memory) take() (*os.File, error) {
	if err := m.custody.Take(); err != nil {
		return nil, err
	}
	f, err := host.Duplicate(m.file)
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

// Copy implements vmm.MemoryCopier.
func (m *memory) Copy(ctx context.Context, limit size.Bytes) (vmm.Memory, error) {
	if err := m.custody.Check(); err != nil {
		return nil, err
	}
	if !m.custody.Held() {
		return m.shared()
	}
	c, err := m.copy(ctx, m.file, limit)
	if c == nil || err != nil {
		return nil, err
	}
	if err := m.custody.Check(); err != nil { // it went on meanwhile
		host.CloseAll(c.file)
		return nil, err
	}
	return c, nil
}

// copy returns a memory like m of what is in from, which no machine holds, or nil if that
// is more than limit.
func (m *memory) copy(ctx context.Context, from *os.File, limit size.Bytes) (*memory, error) {
	fi, err := from.Stat()
	if err != nil {
		return nil, err
	}
	to, err := m.driver.room.newMemoryFile(size.Bytes(fi.Size()))
	if err != nil {
		return nil, err
	}
	done, err := ram.Copy(ctx, from, to, limit)
	if err != nil || !done {
		host.CloseAll(to)
		return nil, err
	}
	c := &memory{file: to, of: m.of, driver: m.driver}
	c.free()
	return c, nil
}

// shared returns the memory again, which no machine holds: it serves clones of both.
func (m *memory) shared() (vmm.Memory, error) {
	f, err := m.clone()
	if err != nil {
		return nil, err
	}
	c := &memory{file: f, of: m.of, driver: m.driver}
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

// memoryOf opens the memory of a process, which is mapped shared.
func memoryOf(p *host.Process, descriptor int) (*os.File, error) {
	f, err := os.OpenFile(fmt.Sprintf("/proc/%d/fd/%d", p.PID, descriptor), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	// It was this very process, if that still lives.
	if p.Zombie() {
		host.CloseAll(f)
		return nil, vmm.ErrEnded
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0); err != nil {
		host.CloseAll(f)
		return nil, fmt.Errorf("descriptor %d of the VMM is not its memory: %w", descriptor, err)
	}
	return f, nil
}

// name gives the memory a name for the moment of a save: the VMM leaves shared memory out
// of a snapshot if somebody else could find it. Where it gets none the VMM dumps it, for
// nothing: a memfd, or a file that had a name before, which the kernel links only once.
func (m *Machine) name(f *os.File) {
	if !inTmpfs(f) {
		return
	}
	m.unname() // an earlier daemon may have died in a save
	_ = unix.Linkat(unix.AT_FDCWD, file(int(f.Fd())), unix.AT_FDCWD, m.memoryPath(), unix.AT_SYMLINK_FOLLOW)
}

// unname takes the name away.
func (m *Machine) unname() { _ = os.Remove(m.memoryPath()) } // it has none most of the time

// memoryPath is the name, which is that of the process.
func (m *Machine) memoryPath() string {
	return filepath.Join(memoryDir, fmt.Sprintf("%s-%d", memoryName, m.proc.PID))
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
	m := &memory{of: s.State.Digest, driver: d}
	if d.account == nil { // where it can be sealed, for clones
		if m.file, err = host.MemoryFile(memoryName); err == nil {
			err = m.file.Truncate(int64(image.Size()))
		}
	} else {
		m.file, err = d.room.newMemoryFile(image.Size())
	}
	if err == nil {
		err = image.Load(ctx, m.file)
	}
	if err != nil {
		host.CloseAll(m.file)
		return nil, loadError(ctx, err)
	}
	m.free()
	return m, nil
}
