package libkrun

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/libkrun/recipe"
)

// kernelFormat finds out before libkrun does whether a kernel is one, and says it
// better.
func kernelFormat(k io.ReaderAt, arch string) (recipe.KernelFormat, error) {
	if arch == "arm64" {
		// Documentation/arm64/booting.rst: the magic at 56 of an Image.
		var magic [4]byte
		if _, err := k.ReadAt(magic[:], 56); err != nil || binary.LittleEndian.Uint32(magic[:]) != 0x644d5241 {
			return 0, errors.New("not an uncompressed arm64 kernel image")
		}
		return recipe.Image, nil
	}
	e, err := elf.NewFile(k)
	if err != nil {
		return 0, fmt.Errorf("not an uncompressed kernel (ELF): %w", err)
	}
	if e.Machine != elf.EM_X86_64 {
		return 0, fmt.Errorf("a kernel for %v", e.Machine)
	}
	return recipe.ELF, nil
}

// commandLine returns the driver's arguments and then the caller's.
//
// libkrun ends the VM when the keyboard controller resets it (reboot=k), which is how
// a machine without ACPI restarts; panic=-1 makes a panicking one do so at once. A guest
// that was stopped finds that time has gone by: its watchdogs would take that for a
// hang.
func commandLine(spec *vmm.Spec) string { return commandLineFor(spec, goarch) }

func commandLineFor(spec *vmm.Spec, arch string) string {
	args := []string{"console=ttyS0", "8250.nr_uarts=1", "reboot=k", "no_timer_check", "i8042.noaux", "i8042.nokbd"}
	if arch == "arm64" {
		args = []string{"console=ttyAMA0"}
	}
	args = append(args, "panic=-1", "quiet", "cryptomgr.notests", "init_on_alloc=0", "audit=0", "random.trust_cpu=on",
		"nowatchdog", "rcupdate.rcu_cpu_stall_suppress=1", guestproto.RestartArg)
	if len(spec.Disks) > 0 {
		var names []string
		for _, d := range spec.Disks {
			names = append(names, d.Name)
		}
		args = append(args, guestproto.DisksArg+"="+strings.Join(names, ","))
	}
	if spec.Cmdline != "" {
		args = append(args, spec.Cmdline)
	}
	return strings.Join(args, " ")
}
