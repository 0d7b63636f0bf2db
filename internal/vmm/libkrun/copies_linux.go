package libkrun

import (
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// copies holds files in memory that the account of VMs has no right to read: libkrun
// opens kernel and initramfs when it has given up root's. One copy serves all machines;
// it is sealed, as every VM could write to it otherwise.
type copies struct {
	mu    sync.Mutex
	files map[fileID]*os.File
}

// fileID names the content of a file.
type fileID struct {
	dev, ino   uint64
	size, time int64
}

const (
	// maxCopies is kernel and initramfs, before and after an upgrade.
	maxCopies = 4
	copyName  = "aegis-copy"
)

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
			for _, old := range c.files { // machines that run keep theirs
				closeAll(old)
			}
			c.files = nil
		}
		if c.files == nil {
			c.files = map[fileID]*os.File{}
		}
		c.files[id] = m
	}
	fd, err := unix.FcntlInt(c.files[id].Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, os.NewSyscallError("dup", err)
	}
	return os.NewFile(uintptr(fd), copyName), nil
}

func sealedCopy(f *os.File) (*os.File, error) {
	fd, err := unix.MemfdCreate(copyName, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	m := os.NewFile(uintptr(fd), copyName)
	if _, err = io.Copy(m, f); err == nil {
		_, err = unix.FcntlInt(m.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	}
	if err != nil {
		closeAll(m)
		return nil, fmt.Errorf("copy %s into memory: %w", f.Name(), err)
	}
	return m, nil
}
