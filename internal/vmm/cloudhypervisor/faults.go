package cloudhypervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/host"
)

// How to get it.
const installHint = "aegis setup fetches it where cloud_hypervisor_url and cloud_hypervisor_sha256 are set; or put the release binary into PATH"

func errMissing(binary string, cause error) error {
	return fault.Wrap(fault.Unavailable, cause, "%s cannot be run", filepath.Base(binary)).By(fault.Host).WithHint(installHint)
}

func errTooOld(v Version) error {
	return fault.New(fault.Unavailable, "%s %v is too old: AegisVM needs %v", displayName, v, oldest).By(fault.Host).
		WithHint("name a newer one with AEGIS_CLOUD_HYPERVISOR=PATH, or use QEMU: AEGIS_VMM=qemu")
}

// errNoKVM tells that there is nothing for it to stand on.
func errNoKVM(why string) error {
	return fault.New(fault.Unavailable, "%s needs KVM: %s", displayName, why).By(fault.Host).
		WithHint("QEMU runs VMs without it: AEGIS_VMM=qemu; for the right to use KVM: sudo usermod -aG kvm $USER")
}

func errKernel(path string, cause error) error {
	return fault.Wrap(fault.Unavailable, cause, "guest kernel %s", path).By(fault.Host).
		WithHint("remove its folder, and make it again: aegis setup")
}

func errDiskFile(name string, err error) error {
	return fault.Wrap(fault.Unavailable, err, "disk %s", name).By(fault.Host).WithHint("aegis doctor")
}

func errMemory(want, have size.Bytes) error {
	return fault.New(fault.Exhausted, "%v of memory for the VM are more than the %v this host has free", want, have).By(fault.Host).
		WithHint("give it less with --memory, or stop something: aegis instance list")
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

// storeError explains why a machine was not saved.
func storeError(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fault.Wrap(fault.Exhausted, err, "no space to save the VM").By(fault.Host).
			WithHint("free some space where AEGIS_HOME is: df -h")
	}
	return fault.Wrap(fault.Unavailable, err, "save the VM").By(fault.Host).WithHint("aegis doctor")
}

// errStart explains a process that ended before it was a machine.
func errStart(e *ending) error {
	words := host.LastWords(e.stderr)
	if strings.Contains(words, "Cannot allocate memory") {
		return fault.New(fault.Exhausted, "no memory for the VM: %s", words).By(fault.Host).
			WithHint("give it less with --memory, or stop something: aegis instance list")
	}
	if words == "" {
		if words = e.exit().Detail; words == "" {
			words = "no reason given"
		}
	}
	return fault.New(fault.Unavailable, "%s ended while it started the VM: %s", displayName, words).By(fault.Driver).
		WithHint("run it again; if it happens again, look at: aegis doctor")
}

// errRefused explains what the VMM did not want to do.
func errRefused(r *refusal) error {
	said := r.Error()
	switch {
	case strings.Contains(said, "lock"):
		return fault.Wrap(fault.Conflict, r, "another machine uses a disk of the VM").By(fault.Host).
			WithHint("stop what uses it: aegis instance list")
	case strings.Contains(said, "Cannot allocate memory"):
		return fault.Wrap(fault.Exhausted, r, "no memory for the VM").By(fault.Host).
			WithHint("give it less with --memory, or stop something: aegis instance list")
	case strings.Contains(said, "/dev/kvm"):
		return errNoKVM(said)
	}
	return fault.Wrap(fault.Unavailable, r, "%s refuses the VM", displayName).By(fault.Driver).
		WithHint("run it again; if it happens again, look at: aegis doctor")
}

// dying tells whether an error is what one sees of a process that goes.
func dying(err error) bool {
	for _, sign := range []error{
		net.ErrClosed, os.ErrClosed, vmm.ErrEnded, io.EOF, io.ErrUnexpectedEOF,
		syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE, syscall.ENOENT,
	} {
		if errors.Is(err, sign) {
			return true
		}
	}
	return false
}
