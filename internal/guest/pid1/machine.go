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
	template bool  // the disk waits for a Hello that is not Prepare
	common   *step // modules, image and network
	own      *step // disk, root and userland
	network  sync.WaitGroup
	state    *os.File   // the harness's folder on the instance's disk; set by own
	mounting sync.Mutex // folders of the host

	identity sync.Mutex // one at a time
	bootID   bool       // /proc/sys/kernel/random/boot_id is replaced

	cold    sync.Mutex // held while programs are frozen or let go
	thawed  uint64     // how often they were let go; guarded by cold
	held    bool       // the host has frozen them; guarded by cold
	reading int        // how many read what has changed, for which they stand still; guarded by cold
}

func newMachine(mods modules, template bool) *machine {
	return &machine{modules: mods, template: template, common: newStep(), own: newStep()}
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
		// Clones need them anyway, and to end the connections of their source.
		if err := m.modules.load("workspace"); err != nil {
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
	if err := mountUserland(); err != nil {
		return err
	}
	if err := makeCgroups(); err != nil {
		return err
	}
	return writeDefaults()
}

// Prepare implements server.System.
func (m *machine) Prepare(ctx context.Context) error {
	if !m.template {
		return &guestproto.Error{Code: guestproto.CodeInvalid, Msg: "this machine was not booted to be a template"}
	}
	if err := m.common.wait(ctx); err != nil {
		return err
	}
	m.network.Wait()
	return nil
}

// Ready implements server.System.
func (m *machine) Ready(ctx context.Context, disk int64) error {
	m.own.begin(func() error { return m.makeOwn(disk) })
	return m.own.wait(ctx)
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
	m.cold.Lock()
	defer m.cold.Unlock()
	m.thawed++
	m.held = false
	if m.reading > 0 {
		return nil // they let go
	}
	return freezeCgroup(false)
}

// Freeze implements server.System.
func (m *machine) Freeze(deadline time.Duration) ([]string, error) {
	m.cold.Lock()
	before := m.thawed
	m.cold.Unlock()
	unix.Sync()
	m.cold.Lock()
	// The machine may have been paused in the middle of writing, and be wanted again.
	if m.thawed != before {
		m.cold.Unlock()
		return nil, &guestproto.Error{Code: guestproto.CodeUnavailable, Msg: "the programs were let go meanwhile"}
	}
	err := freezeCgroup(true)
	m.held = err == nil
	m.cold.Unlock()
	if err != nil {
		return nil, fmt.Errorf("freeze: %w", err)
	}
	return awaitFrozen(deadline)
}
