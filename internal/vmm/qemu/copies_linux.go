package qemu

import (
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// copies holds files in memory that the account of VMMs has no right to read:
// QEMU opens kernel and initramfs again through their descriptors, for which
// holding one is not enough. One copy serves all machines; it is sealed, as every
// VMM could write to it otherwise.
type copies struct {
	mu    sync.Mutex
	files map[fileID]*os.File
}

// fileID names the content of a file.
type fileID struct {
	dev, ino   uint64
	size, time int64
}

// maxCopies is kernel and initramfs, before and after an upgrade.
const maxCopies = 4

// open returns a descriptor of a copy of f, which is the caller's to close.
func (c *copies) open(f *os.File) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	id := fileID{dev: uint64(st.Dev), ino: st.Ino, size: st.Size, time: st.Mtim.Nano()} //nolint:unconvert // not on every system
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.files[id] == nil {
		m, err := sealedCopy(f)
		if err != nil {
			return nil, err
		}
		if len(c.files) >= maxCopies {
			c.clear()
		}
		if c.files == nil {
			c.files = map[fileID]*os.File{}
		}
		c.files[id] = m
	}
	return duplicate(c.files[id])
}

// duplicate returns another descriptor of a file without a name.
func duplicate(f *os.File) (*os.File, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	var duped error
	if err := raw.Control(func(of uintptr) { fd, duped = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, 3) }); err != nil {
		return nil, err
	}
	if duped != nil {
		return nil, os.NewSyscallError("dup", duped)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// seal makes a file without a name unchangeable, for ever and for everybody. It
// fails while somebody could still write to it.
func seal(f *os.File) error {
	_, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	return os.NewSyscallError("seal", err)
}

// clear closes all copies; machines that run keep theirs.
func (c *copies) clear() {
	for id, f := range c.files {
		closeAll(f)
		delete(c.files, id)
	}
}

func sealedCopy(f *os.File) (*os.File, error) {
	m, err := memoryFile("aegis-copy")
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(m, f)
	if err == nil {
		err = seal(m)
	}
	if err != nil {
		closeAll(m)
		return nil, fmt.Errorf("copy %s into memory: %w", f.Name(), err)
	}
	return m, nil
}

func memoryFile(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}
