package qemu

import (
	"log/slog"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// Accel is how a guest's instructions are executed.
type Accel string

// The accelerators. Auto is only asked for.
const (
	Auto Accel = "auto" // KVM where it works, else TCG
	KVM  Accel = "kvm"
	TCG  Accel = "tcg"
)

// ParseAccel reads what a user writes; "" is Auto.
func ParseAccel(s string) (Accel, error) {
	switch a := Accel(s); a {
	case "":
		return Auto, nil
	case Auto, KVM, TCG:
		return a, nil
	}
	return "", fault.New(fault.Invalid, "no accelerator %q", s).WithHint("AEGIS_ACCEL is auto, kvm or tcg")
}

// Options configure a Driver. The zero value is the default.
type Options struct {
	Binary string // program name or path; "" is qemu-system-<arch> in PATH
	Accel  Accel  // "" is Auto
	Arch   string // of guests, as in runtime.GOARCH; "" is this host's, and another's can only be emulated
	Kernel string // path of the kernel that Auto tries KVM with; without one Auto is TCG
	// Verdicts is the folder that remembers whether KVM works; "" is one for each user
	// of this host, shared by all homes.
	Verdicts string
	// Account is the user that VMMs run as when the daemon is root: a name that must
	// exist, or "" for a number of its own for each of them. Where there are no such
	// numbers, in a container, they are all aegis-vm, or a fixed number.
	Account string

	kvm string       // the device of KVM, "" being the kernel's: a test has one that does not work
	Log *slog.Logger // nil is none
}
