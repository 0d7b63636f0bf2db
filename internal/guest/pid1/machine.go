//go:build linux

package pid1

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/guest/outlog"
	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// machine implements server.System.
type machine struct {
	modules  modules
	template bool  // the disk waits for a Hello that is not Prepare
	common   *step // modules, image and network
	own      *step // disk, root and userland
	network  sync.WaitGroup
	state    *os.File // the harness's folder on the instance's disk; set by own

	mounting  sync.Mutex         // folders of the host
	mountable bool               // what that needs is there; guarded by mounting
	mounts    map[string]mounted // by target; guarded by mounting

	growing sync.Mutex
	disk    int64 // bytes of the instance's disk that its file system takes, 0 for all there were; guarded by growing

	identity   sync.Mutex // one at a time
	bootID     bool       // /proc/sys/kernel/random/boot_id is replaced
	identified bool       // it is, or was, somebody's

	cold cold
}

func newMachine(mods modules, template bool) *machine {
	return &machine{modules: mods, template: template, common: newStep(), own: newStep(), mounts: map[string]mounted{}}
}

// step is a part of building the machine. It is done once.
type step struct {
	once sync.Once
	done chan struct{} // closed when err is set
	err  error
}

func newStep() *step { return &step{done: make(chan struct{})} }

// begin does the step in the background, unless that was begun before.
func (s *step) begin(do func() error) {
	s.once.Do(func() {
		go func() { // ends when the step is done; wait tells
			defer close(s.done)
			if err := do(); err != nil {
				console("%v", err)
				s.err = &guestproto.Error{Code: guestproto.CodeRootfs, Msg: err.Error()}
			}
		}()
	})
}

// wait waits until the step is done.
func (s *step) wait(ctx context.Context) error {
	select {
	case <-s.done:
		return s.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// build begins to make the root file system, the network and the cgroups.
func (m *machine) build() {
	m.common.begin(m.makeCommon)
	if !m.template {
		m.own.begin(func() error { return m.makeOwn(0) })
	}
}

func (m *machine) makeCommon() error {
	if err := m.modules.load("root"); err != nil {
		return err
	}
	// The network needs nothing of the root; a VM that has none starts without.
	m.network.Go(func() {
		if err := setUpNetwork(); err != nil {
			console("network: %v", err)
		}
	})
	if m.template {
		// Clones need that anyway, and to end the connections of their source.
		m.mounting.Lock()
		defer m.mounting.Unlock()
		if err := m.prepareMounts(); err != nil {
			return err
		}
	}
	return mountBase()
}

func (m *machine) makeOwn(disk int64) error {
	<-m.common.done
	if m.common.err != nil {
		return m.common.err
	}
	defer m.network.Wait()
	var err error
	if m.state, err = mountRoot(disk); err != nil {
		return err
	}
	m.growing.Lock()
	m.disk = disk
	m.growing.Unlock()
	if err := mountUserland(); err != nil {
		return err
	}
	if err := mountTools(); err != nil {
		return err
	}
	if err := makeCgroups(); err != nil {
		return err
	}
	return writeDefaults()
}

// Ready implements server.System.
func (m *machine) Ready(ctx context.Context, disk int64) error {
	m.own.begin(func() error { return m.makeOwn(disk) })
	if err := m.own.wait(ctx); err != nil {
		return err
	}
	return m.enlarge(disk)
}

// enlarge grows the file system of an instance's disk that is larger than the one of its
// template.
func (m *machine) enlarge(disk int64) error {
	m.growing.Lock()
	defer m.growing.Unlock()
	if disk <= m.disk || m.disk == 0 {
		return nil
	}
	dev, ok := blockDevice("disk")
	if !ok {
		return nil
	}
	if err := awaitSize(dev, disk); err != nil {
		return err
	}
	m.disk = disk
	if err := grow(dev, m.state); err != nil {
		console("grow the disk: %v", err) // it works at its old size
	}
	return nil
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
	s.CPUUS, _ = strconv.ParseInt(value(cgroupRoot+"/cpu.stat", "usage_usec"), 10, 64) // 0 is unknown
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
	if !onCommandLine(guestproto.RestartArg) { // a kernel without a power switch would halt, for ever
		err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
		console("power off: %v", err)
	}
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART) // VMMs end a VM that restarts
}

// fiFreeze is FIFREEZE of linux/fs.h.
const fiFreeze = 0xc0045877
