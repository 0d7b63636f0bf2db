//go:build linux

package pid1

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// mount is one call of mount(2).
type mount struct {
	source, target, fstype string
	flags                  uintptr
	data                   string
}

func (m mount) do() error {
	if err := unix.Mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", m.fstype, m.target, err)
	}
	return nil
}

const noexec = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// mountEarly mounts what the harness itself needs, in the initramfs.
func mountEarly() error {
	unix.Umask(0o022)
	for _, m := range []mount{
		{"proc", "/proc", "proc", noexec, ""},
		{"sysfs", "/sys", "sysfs", noexec, ""},
		{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755"},
	} {
		if err := mountPoint(m.target); err != nil {
			return err
		}
		if err := m.do(); err != nil {
			return err
		}
	}
	return nil
}

// mountUserland mounts what programs expect, in the root file system. Mount points
// that the image lacks are made, in the overlay.
func mountUserland() error {
	for _, m := range []mount{
		{"proc", "/proc", "proc", noexec, ""},
		{"sysfs", "/sys", "sysfs", noexec, ""},
		{"cgroup2", "/sys/fs/cgroup", "cgroup2", noexec, ""},
		{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755"},
		{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=0620,gid=5,ptmxmode=0666"},
		{"tmpfs", "/dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
		{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
	} {
		if err := mountPoint(m.target); err != nil {
			return err
		}
		if err := m.do(); err != nil {
			return err
		}
	}
	for name, target := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(target, "/dev/"+name); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	if err := mountPoint("/tmp"); err != nil {
		return err
	}
	return os.Chmod("/tmp", 0o777|os.ModeSticky)
}

func mountPoint(path string) error {
	if err := os.MkdirAll(path, 0o755); err != nil { //nolint:gosec // system folders are for all
		return fmt.Errorf("make the mount point %s: %w", path, err)
	}
	return nil
}

// blockDevice returns the device whose serial number is name, or the one that the
// command line calls so.
func blockDevice(name string) (string, bool) {
	serials, _ := filepath.Glob("/sys/block/*/serial") // the pattern is good
	for _, path := range serials {
		b, err := os.ReadFile(path)
		if err == nil && strings.TrimRight(string(b), "\x00\n ") == name {
			return "/dev/" + filepath.Base(filepath.Dir(path)), true
		}
	}
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return "", false
	}
	return guestproto.DiskDevice(string(line), name)
}
