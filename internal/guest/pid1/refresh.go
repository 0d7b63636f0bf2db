//go:build linux

package pid1

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// refreshPatience bounds the wait for the kernel to hear of a disk's size. The VMM
// told it before the machine ran; what remains is one work item.
const refreshPatience = 5 * time.Second

// refresh forgets what was read of a disk, which a template had another of, and waits
// until the kernel knows that it has at least size bytes.
func refresh(dev string, size int64) error {
	f, err := os.Open(dev)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // read only
	if err := unix.IoctlSetInt(int(f.Fd()), unix.BLKFLSBUF, 0); err != nil {
		return fmt.Errorf("drop the buffers of %s: %w", dev, err)
	}
	return awaitSize(dev, size)
}

// awaitSize waits until the kernel knows that a disk has at least size bytes.
func awaitSize(dev string, size int64) error {
	if size == 0 {
		return nil
	}
	f, err := os.Open(dev)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // read only
	events, err := uevents()
	if err != nil {
		return err
	}
	defer unix.Close(events) //nolint:errcheck // only read
	for end := time.Now().Add(refreshPatience); ; {
		have, err := f.Seek(0, 2)
		if err != nil {
			return err
		}
		if have >= size {
			return nil
		}
		left := time.Until(end)
		if left <= 0 {
			return fmt.Errorf("%s has %d bytes, not %d", dev, have, size)
		}
		if err := await(events, left); err != nil {
			return err
		}
	}
}

// uevents listens to what the kernel tells of its devices.
func uevents() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return -1, err
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		_ = unix.Close(fd) // nothing was read
		return -1, fmt.Errorf("listen to the kernel's events: %w", err)
	}
	return fd, nil
}

// await returns when there has been an event, or the time is over.
func await(events int, limit time.Duration) error {
	fds := []unix.PollFd{{Fd: int32(events), Events: unix.POLLIN}} //nolint:gosec // a descriptor
	if _, err := unix.Poll(fds, int(limit.Milliseconds())+1); err != nil && err != unix.EINTR {
		return err
	}
	buf := make([]byte, 16<<10)
	for {
		if _, _, err := unix.Recvfrom(events, buf, 0); err != nil {
			return nil //nolint:nilerr // nothing is left to read; what was lost shows in the size
		}
	}
}
