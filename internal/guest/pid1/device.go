//go:build linux

package pid1

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/guest/port"
	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// device is the virtio-serial port, opened once and never closed.
//
// A port without a host is always ready, to say that it has hung up; a loop over
// poll would spin. The runtime's poller is edge triggered, so a read that gives
// nothing waits for the next change: a host that connects is one.
type device struct {
	file *os.File
	raw  syscall.RawConn
	here bool // the last read found a host
}

const (
	// portPatience is how long the port may take to appear: the kernel learns of it
	// from the VMM in the background.
	portPatience = 30 * time.Second
	portInterval = 2 * time.Millisecond
)

func openPort() (*device, error) {
	late := time.NewTimer(portPatience)
	defer late.Stop()
	tick := time.NewTicker(portInterval)
	defer tick.Stop()
	for {
		if path, ok := findPort(); ok {
			return openDevice(path)
		}
		select {
		case <-tick.C:
		case <-late.C:
			return nil, fmt.Errorf("the VM has no port named %s", guestproto.PortName)
		}
	}
}

func findPort() (string, bool) {
	names, _ := filepath.Glob("/sys/class/virtio-ports/*/name") // the pattern is good
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err == nil && strings.TrimSpace(string(b)) == guestproto.PortName {
			return "/dev/" + filepath.Base(filepath.Dir(name)), true
		}
	}
	return "", false
}

func openDevice(path string) (*device, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	if err := f.SetDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("%s cannot be polled: %w", path, err)
	}
	return &device{file: f, raw: raw}, nil
}

// Read implements port.Device.
func (d *device) Read(p []byte) (n int, err error) {
	gone := false
	waitErr := d.raw.Read(func(fd uintptr) bool {
		for {
			n, err = unix.Read(int(fd), p)
			switch {
			case errors.Is(err, unix.EINTR):
				continue
			case errors.Is(err, unix.EAGAIN):
				d.here = true
				return false
			case n == 0 && err == nil && d.here: // the host has just gone
				d.here, gone = false, true
				return true
			case n == 0 && err == nil:
				return false
			}
			return true
		}
	})
	switch {
	case waitErr != nil:
		return 0, waitErr
	case gone:
		return 0, port.ErrNoHost
	case err != nil:
		return 0, err
	}
	d.here = true
	return n, nil
}

// Write implements port.Device. Without a host the port takes nothing, and Write
// waits.
func (d *device) Write(p []byte) (int, error) { return d.file.Write(p) }

// SetWriteDeadline implements port.Device.
func (d *device) SetWriteDeadline(t time.Time) error { return d.file.SetWriteDeadline(t) }
