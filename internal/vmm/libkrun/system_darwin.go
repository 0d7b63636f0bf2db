package libkrun

import (
	"context"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/vmm/libkrun/recipe"
)

const (
	accel       = "hvf"
	libraryName = "libkrun.1.dylib"
	installHint = "brew tap slp/krun && brew install libkrun"
)

// libraries are tried in this order: Homebrew's places, on Apple's processors and by
// hand, and the loader's own.
var libraries = []string{
	"/opt/homebrew/lib/" + libraryName, "/usr/local/lib/" + libraryName, libraryName,
}

// environment is a worker's.
func environment() []string { return []string{"PATH=/usr/bin:/bin", "LC_ALL=C"} }

// findAccount returns nil: VMs run as the user that the daemon is.
func findAccount(string) (*recipe.Account, error) { return nil, nil }

// attributes returns what a worker is started with: a session of its own, so that
// Ctrl-C in the daemon's terminal is not for it.
func attributes(*recipe.Account) *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

// lend gives the worker a file by its name: it has the same rights.
func (l *launch) lend(_ *Driver, f *os.File) (string, error) {
	defer closeAll(f)
	return f.Name(), nil
}

// copies is for systems where a worker has less rights than the daemon.
type copies struct{}

// judge asks the system whether it has virtualization. Whether the worker may use it
// is a matter of its signature, of which a start tells.
func (d *Driver) judge(context.Context, *Options) (string, error) {
	if has, err := unix.SysctlUint32("kern.hv_support"); err != nil || has != 1 {
		return "", fault.New(fault.Unavailable, "this Mac has no Hypervisor framework to use").By(fault.Host).
			WithHint("AegisVM needs a Mac with an Apple processor, and macOS not itself in a VM")
	}
	return "macOS has its Hypervisor framework", nil
}
