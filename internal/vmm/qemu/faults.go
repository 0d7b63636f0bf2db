package qemu

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// Program returns the name of QEMU's binary for guests of this machine's kind.
func Program() string {
	if runtime.GOARCH == "arm64" {
		return "qemu-system-aarch64"
	}
	return "qemu-system-x86_64"
}

func errMissing(binary string, cause error) error {
	return fault.Wrap(fault.Unavailable, cause, "%s cannot be run", filepath.Base(binary)).By(fault.Host).
		WithHint("%s", installHint("/etc/os-release", runtime.GOARCH))
}

// errNotFound tells that there is no QEMU: the one that somebody has named, or any.
func errNotFound(named string, cause error) error {
	if named == "" {
		return errMissing(Program(), cause)
	}
	return fault.Wrap(fault.Unavailable, cause, "%s cannot be run", named).By(fault.Host).
		WithHint("the setting qemu names it: aegis config show")
}

func errTooOld(v Version) error {
	return fault.New(fault.Unavailable, "QEMU %v is too old: AegisVM needs %d.%d", v, oldest.Major, oldest.Minor).By(fault.Host).
		WithHint("Debian 12, Ubuntu 24.04 and Fedora 38 have it; on older ones name a newer build with the setting qemu: AEGIS_QEMU=PATH")
}

func errKernel(path string, cause error) error {
	return fault.Wrap(fault.Unavailable, cause, "guest kernel %s", path).By(fault.Host).
		WithHint("remove its folder, and make it again: aegis setup")
}

func errMemory(want, have size.Bytes) error {
	return fault.New(fault.Exhausted, "%v of memory for the VM are more than the %v this host has free", want, have).By(fault.Host).
		WithHint("give it less with --memory, or stop something: aegis instance list")
}

// installHint returns the command that installs QEMU on the distribution that the
// os-release file describes.
func installHint(osRelease, arch string) string {
	i := 0
	if arch == "arm64" {
		i = 1
	}
	for _, id := range distributions(osRelease) {
		switch id {
		case "debian", "ubuntu":
			return "sudo apt-get install " + [...]string{"qemu-system-x86", "qemu-system-arm"}[i]
		case "fedora":
			return "sudo dnf install " + [...]string{"qemu-system-x86-core", "qemu-system-aarch64-core"}[i]
		case "arch":
			return "sudo pacman -S " + [...]string{"qemu-system-x86", "qemu-system-aarch64"}[i]
		case "alpine":
			return "sudo apk add " + [...]string{"qemu-system-x86_64", "qemu-system-aarch64"}[i]
		case "suse", "opensuse":
			return "sudo zypper install " + [...]string{"qemu-x86", "qemu-arm"}[i]
		}
	}
	return "install QEMU " + oldest.String() + " or newer so that " + Program() + " is in PATH"
}

// distributions returns the ids in an os-release file, the closest first.
func distributions(path string) []string {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close() //nolint:errcheck // only read
	var id, like string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if v, ok := strings.CutPrefix(lines.Text(), "ID="); ok {
			id = strings.Trim(v, `"'`)
		} else if v, ok := strings.CutPrefix(lines.Text(), "ID_LIKE="); ok {
			like = strings.Trim(v, `"'`)
		}
	}
	return append([]string{id}, strings.Fields(like)...)
}

// fullDisk is what strerror(3) says of ENOSPC and EDQUOT.
var fullDisk = []string{"No space left on device", "Disk quota exceeded"}

// errDisk explains an error of the host's disk that the guest has met. QEMU says
// nospace only where it would stop the machine for it; its locale is C.
func errDisk(nospace bool, reason string) error {
	if nospace || slices.Contains(fullDisk, reason) {
		return fault.New(fault.Exhausted, "the host's disk was full when the VM wrote to its own").By(fault.Host).
			WithHint("free some space where AEGIS_HOME is: df -h")
	}
	return fault.New(fault.Unavailable, "the host could not serve the VM's disk: %s", reason).By(fault.Host).
		WithHint("the host's log may tell why: dmesg")
}

// errStale says that a saved machine cannot be started here, and why.
func errStale(format string, args ...any) error {
	return fault.Wrap(fault.Conflict, fmt.Errorf("%w: %s", vmm.ErrStale, fmt.Sprintf(format, args...)), "").By(fault.Driver).
		WithHint("it starts without its memory")
}

// loadError explains why a machine was not started from a saved one.
func loadError(ctx context.Context, err error) error {
	if _, told := errors.AsType[*fault.Error](err); told {
		return err
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, vmm.ErrDamaged):
		return fault.Wrap(fault.Unavailable, err, "").By(fault.Host).
			WithHint("it starts without its memory; if it happens again, look at the host's log: dmesg")
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.ENOMEM):
		return fault.Wrap(fault.Exhausted, err, "no memory for the VM").By(fault.Host).
			WithHint("stop something: aegis instance list")
	}
	return fault.Wrap(fault.Unavailable, err, "start from a saved machine").By(fault.Host).WithHint("aegis doctor")
}

// errStart explains a process that ended before it was a machine.
func errStart(e *ending) error {
	words := lastWords(e.stderr)
	switch {
	case strings.Contains(words, "Cannot allocate memory"):
		return fault.New(fault.Exhausted, "no memory for the VM: %s", words).By(fault.Host).
			WithHint("give it less with --memory, or stop something: aegis instance list")
	case strings.Contains(words, "No space left on device"):
		return fault.New(fault.Exhausted, "no space for the VM: %s", words).By(fault.Host).WithHint("df -h")
	case strings.Contains(words, "Failed to get") && strings.Contains(words, "lock"):
		return fault.New(fault.Conflict, "another machine uses a disk of the VM: %s", words).By(fault.Host).
			WithHint("stop what uses it: aegis instance list")
	case words == "":
		if words = e.exit().Detail; words == "" {
			words = "no reason given"
		}
	}
	return fault.New(fault.Unavailable, "QEMU ended while it started the VM: %s", words).By(fault.Driver).
		WithHint("run it again; if it happens again, look at: aegis doctor")
}
