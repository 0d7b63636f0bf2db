//go:build linux

package pid1

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/guest/outlog"
	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// machine implements server.System.
type machine struct {
	modules  modules
	mounting sync.Mutex    // folders of the host
	built    chan struct{} // closed when the fields below are set
	err      error
	state    *os.File // the harness's folder on the instance's disk

	identity sync.Mutex // one at a time
	bootID   bool       // /proc/sys/kernel/random/boot_id is replaced
}

func newMachine(mods modules) *machine { return &machine{modules: mods, built: make(chan struct{})} }

// build makes the root file system, the network and the cgroups.
func (m *machine) build() {
	defer close(m.built)
	if err := m.make(); err != nil {
		console("%v", err)
		m.err = &guestproto.Error{Code: guestproto.CodeRootfs, Msg: err.Error()}
	}
}

func (m *machine) make() error {
	if err := m.modules.load("root"); err != nil {
		return err
	}
	// The network needs nothing of the root; a VM that has none starts without.
	var network sync.WaitGroup
	defer network.Wait()
	network.Go(func() {
		if err := setUpNetwork(); err != nil {
			console("network: %v", err)
		}
	})
	var err error
	if m.state, err = mountRoot(); err != nil {
		return err
	}
	if err := mountUserland(); err != nil {
		return err
	}
	if err := makeCgroups(); err != nil {
		return err
	}
	return writeDefaults()
}

// Ready implements server.System.
func (m *machine) Ready(ctx context.Context) error {
	select {
	case <-m.built:
		return m.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// ringFile makes the file of an output log: on the instance's disk, without a name,
// so that it goes with its process.
func (m *machine) ringFile() (outlog.File, error) {
	fd, err := unix.Openat(int(m.state.Fd()), ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make the ring of an output log: %w", err)
	}
	return os.NewFile(uintptr(fd), "ring"), nil
}

// Stats implements server.System.
func (m *machine) Stats() (guestproto.Stats, error) {
	var s guestproto.Stats
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return s, err
	}
	s.MemoryTotal = int64(info.Totalram) * int64(info.Unit) //nolint:gosec // far below 2^63
	s.MemoryAvailable = memAvailable()
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(m.state.Fd()), &fs); err != nil {
		return s, err
	}
	s.DiskTotal = int64(fs.Blocks) * fs.Bsize                //nolint:gosec // far below 2^63
	s.DiskUsed = int64(fs.Blocks-fs.Bfree) * int64(fs.Bsize) //nolint:gosec,unconvert // as above; its type differs between architectures
	s.Processes = len(processes(cgroupRoot))
	return s, nil
}

func memAvailable() int64 {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	return meminfo(string(b), "MemAvailable")
}

// PowerOff implements server.System. It does not return.
func (m *machine) PowerOff() {
	_ = unix.Kill(-1, unix.SIGKILL) // whatever left its cgroup; nobody may be left
	unix.Sync()
	if m.state != nil {
		// Freezing writes the journal out: the disk is as clean as after umount.
		_ = unix.IoctlSetInt(int(m.state.Fd()), fiFreeze, 0) // sync has done the essential part
	}
	err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	console("power off: %v", err)
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART) // VMMs end a VM that restarts
}

// fiFreeze is FIFREEZE of linux/fs.h.
const fiFreeze = 0xc0045877

// Thaw implements server.System.
func (m *machine) Thaw(thaw guestproto.Thaw) error {
	if err := reseed(thaw.Entropy); err != nil {
		return err
	}
	if err := setClock(time.Unix(0, thaw.UnixNano)); err != nil {
		return err
	}
	return freezeCgroup(false)
}

// Freeze implements server.System.
func (m *machine) Freeze(deadline time.Duration) ([]string, error) {
	unix.Sync()
	return freeze(deadline)
}
