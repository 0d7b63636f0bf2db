package libkrun

import (
	"runtime"
	"strings"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm/libkrun/recipe"
)

func errWorker(cause error) error {
	return fault.Wrap(fault.Unavailable, cause, "the program that VMs of libkrun run in").By(fault.Host).
		WithHint("%s belongs beside aegisd; install AegisVM again", recipe.Program)
}

// errLibrary tells that there is no libkrun: the one that somebody has named, or any.
func errLibrary(named string, cause error) error {
	if named != "" {
		return fault.Wrap(fault.Unavailable, cause, "libkrun cannot be loaded").By(fault.Host).
			WithHint("the setting libkrun names it: aegis config show")
	}
	return fault.Wrap(fault.Unavailable, cause, "libkrun is not installed").By(fault.Host).WithHint("%s", installHint)
}

func errOld(name string, f *recipe.Facts) error {
	what := name
	if f.Version != "" {
		what += " (version " + f.Version + ")"
	}
	return fault.New(fault.Unavailable, "%s is too old: it lacks %s", what, strings.Join(f.Missing, ", ")).By(fault.Host).
		WithHint("%s; or name a newer one with the setting libkrun: AEGIS_LIBKRUN=PATH", installHint)
}

func errBuild(name string, f *recipe.Facts) error {
	return fault.New(fault.Unavailable, "%s was built without: %s", name, strings.Join(f.Lacks, ", ")).By(fault.Host).
		WithHint("%s; or build it with BLK=1 NET=1", installHint)
}

func errKernel(path string, cause error) error {
	return fault.Wrap(fault.Unavailable, cause, "guest kernel %s", path).By(fault.Host).
		WithHint("remove its folder, and make it again: aegis setup")
}

func errInitrd(cause error) error {
	return fault.Wrap(fault.Unavailable, cause, "initramfs").By(fault.Host).WithHint("aegis setup")
}

func errDiskFile(name string, cause error) error {
	return fault.Wrap(fault.Unavailable, cause, "disk %s", name).By(fault.Host).WithHint("aegis doctor")
}

func errMemory(want, have size.Bytes) error {
	return fault.New(fault.Exhausted, "%v of memory for the VM are more than the %v this host has free", want, have).By(fault.Host).
		WithHint("give it less with --memory, or stop something: aegis instance list")
}

// errLayers tells of a disk that consists of several files. What a person did with
// another VMM comes here: a fork, or a snapshot.
func errLayers(name string) error {
	return fault.New(fault.Conflict, "disk %s lies on another disk, which libkrun cannot use", name).By(fault.Driver).
		WithHint("start the instance with the VMM that made it: AEGIS_VMM=qemu")
}

func errStart(e *ending) error {
	exit := e.exit()
	what := "the VM did not start: " + exit.Detail
	if strings.Contains(e.words, kvmDevice) {
		return fault.New(fault.Unavailable, "%s", what).By(fault.Host).
			WithHint("for the right to use KVM: sudo usermod -aG kvm $USER")
	}
	return fault.New(fault.Unavailable, "%s", what).By(fault.Driver).WithHint("aegis doctor")
}

const kvmDevice = "/dev/kvm"

// goarch is the guests' architecture, which is the host's.
const goarch = runtime.GOARCH
