package cloudhypervisor

import (
	"log/slog"
)

// Program is the name of the VMM's binary.
const Program = "cloud-hypervisor"

// Options configure a Driver. The zero value is the default.
type Options struct {
	Binary string // program name or path; "" is Program in PATH, then in folders of packages, then in Lib
	Lib    string // folder of programs that set-up has fetched; "" is none
	Kernel string // path of the kernel that KVM is tried with; without one it is not tried, and Open fails
	// Trust says that KVM works, and needs no trial.
	Trust bool
	// Verdicts is the folder that remembers whether KVM works; "" is one for each user
	// of this host, shared by all homes.
	Verdicts string
	// Account is the user that VMMs run as when the daemon is root: a name that must
	// exist, or "" for aegis-vm if it exists and else a fixed unprivileged number.
	Account string
	Log     *slog.Logger // nil is none
}
