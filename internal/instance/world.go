package instance

import (
	"log/slog"
	"time"

	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// World is what instances stand on and are made with.
type World struct {
	Driver   vmm.Driver
	Ground   Ground
	Archive  Archive // nil has neither forks nor snapshots
	Linker   Linker
	Store    Store
	Logs     Logs
	Networks Networks // nil gives machines no network
	// Workspaces has the folders of the host; nil is none.
	Workspaces Workspaces
	Kits       Kits  // nil knows none
	Doors      Doors // nil opens no ports
	Secrets    Secrets
	Images     Images   // nil leaves it to Ground what a Spec's Image is
	GuestAPI   GuestAPI // nil answers no guest
	Log        *slog.Logger
	Limits     Limits
	Defaults   Defaults
	// Memory tells what the host has, for admission; nil admits everything.
	Memory func() (total, available size.Bytes, err error)
}

// Limits bounds how long things may take.
type Limits struct {
	// Boot protects clients from a guest that never comes up: from the VMM's start
	// to the program's start. Emulated machines on a busy host are slow.
	Boot time.Duration
	// Grace is what a program gets between SIGTERM and SIGKILL.
	Grace time.Duration
	// PowerOff protects a stop from a guest that does not end: counted from the end
	// of Grace.
	PowerOff time.Duration
	// Freeze bounds what a pause waits for programs to stop and for dirty data.
	Freeze time.Duration
	// Save protects a hibernation from a disk that hangs.
	Save time.Duration
	// Capture protects a fork or snapshot from a VMM that hangs: it bounds for how long the
	// machine may stand still.
	Capture time.Duration
	// Thaw protects a resume from a guest that does not take its clock.
	Thaw time.Duration
	// Adopt protects a daemon that starts from guests that do not answer it.
	Adopt time.Duration
	// Listen is what a program has from its start until it must listen on a port that
	// a client wants.
	Listen time.Duration
	// Kill protects the daemon from a VMM that cannot even be killed.
	Kill time.Duration
}

// DefaultLimits are the limits of a daemon.
func DefaultLimits() Limits {
	return Limits{Boot: 90 * time.Second, Grace: 10 * time.Second, PowerOff: 5 * time.Second, Freeze: 2 * time.Second, Save: 5 * time.Minute, Capture: 2 * time.Minute, Thaw: 10 * time.Second, Adopt: 5 * time.Second, Listen: 30 * time.Second, Kill: 20 * time.Second}
}
