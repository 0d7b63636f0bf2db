package vsock

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// hardwareRequest is struct ifreq with a hardware address in it.
type hardwareRequest struct {
	name    [unix.IFNAMSIZ]byte
	family  uint16
	address [14]byte
	_       [8]byte
}

// setAddress gives a network device its hardware address.
func setAddress(name string, address [6]byte) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd) //nolint:errcheck // only an ioctl was made on it
	req := hardwareRequest{family: unix.ARPHRD_ETHER}
	copy(req.name[:unix.IFNAMSIZ-1], name)
	copy(req.address[:], address[:])
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFHWADDR, uintptr(unsafe.Pointer(&req))) //nolint:gosec // as the kernel wants it
	if errno != 0 {
		return os.NewSyscallError("SIOCSIFHWADDR", errno)
	}
	return nil
}
