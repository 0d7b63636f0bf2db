package host

import (
	"os"

	"golang.org/x/sys/unix"
)

// MemoryFile returns a file in memory that has no name, and can be sealed.
func MemoryFile(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Seal makes a file of MemoryFile's unchangeable, for ever and for everybody. It fails
// while somebody could still write to it.
func Seal(f *os.File) error {
	_, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	return os.NewSyscallError("seal", err)
}

// Duplicate returns another descriptor of a file without a name.
func Duplicate(f *os.File) (*os.File, error) {
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
