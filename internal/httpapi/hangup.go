package httpapi

import (
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// watchHangup calls gone, once, when the peer of a unix socket has closed it or its
// writing half, whatever it wrote before that still lies unread. Reading would not
// do: while a program does not read its input, the bytes for it stand before the
// end. stop waits for a call of gone in progress.
//
// The descriptor is a copy, so that the runtime's poller wakes this goroutine and
// the one that reads independently.
func watchHangup(conn *net.UnixConn, gone func()) (stop func(), err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	dup, dupErr := 0, error(nil)
	err = raw.Control(func(fd uintptr) { dup, dupErr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	if err == nil {
		err = dupErr
	}
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(dup), "hangup")
	if raw, err = f.SyscallConn(); err != nil {
		_ = f.Close() // the first error tells more
		return nil, err
	}
	hung := false
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The error is that of stop closing f.
		_ = raw.Read(func(fd uintptr) bool {
			hung = isHungUp(int(fd))
			return hung
		})
		if hung {
			gone()
		}
	}()
	return func() {
		_ = f.Close() // a copy; nothing was written
		<-done
	}, nil
}

func isHungUp(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: hangupEvents}} //nolint:gosec // a descriptor fits
	for {
		n, err := unix.Poll(p, 0)
		if err == unix.EINTR {
			continue
		}
		return err == nil && n > 0 && p[0].Revents&(hangupEvents|unix.POLLHUP|unix.POLLERR) != 0
	}
}
