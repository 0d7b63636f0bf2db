package vsock

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// listener accepts the host's connections.
type listener struct{ file *os.File }

// listen listens on a vsock port, for the life of the VM.
func listen(port uint32) (*listener, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("vsock socket", err)
	}
	f := os.NewFile(uintptr(fd), fmt.Sprintf("vsock:%d", port))
	err = unix.Bind(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: port})
	if err == nil {
		err = unix.Listen(fd, 1)
	}
	if err != nil {
		_ = f.Close() // the first error is the one to tell
		return nil, fmt.Errorf("listen on vsock port %d: %w", port, err)
	}
	return &listener{f}, nil
}

// accept returns the next connection of the host. One that a process of the guest
// made, over the loopback transport, is closed.
func (l *listener) accept() (*os.File, error) {
	raw, err := l.file.SyscallConn()
	if err != nil {
		return nil, err
	}
	for {
		var fd int
		var from unix.Sockaddr
		var got error
		if err := raw.Read(func(s uintptr) bool {
			fd, from, got = unix.Accept4(int(s), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			return !errors.Is(got, unix.EAGAIN)
		}); err != nil {
			return nil, err
		}
		switch vm, ok := from.(*unix.SockaddrVM); {
		case errors.Is(got, unix.EINTR), errors.Is(got, unix.ECONNABORTED), errors.Is(got, unix.ECONNRESET):
			continue
		case got != nil:
			return nil, os.NewSyscallError("accept", got)
		case !ok || vm.CID != unix.VMADDR_CID_HOST:
			_ = unix.Close(fd) // nothing was said on it
			continue
		}
		return os.NewFile(uintptr(fd), l.file.Name()), nil
	}
}
