package vmm

import (
	"context"
	"errors"
	"net"

	"github.com/xfeldman/aegisvm/internal/size"
)

// ErrEnded is wrapped by every call on a machine that no longer runs.
var ErrEnded = errors.New("the machine has ended")

// ErrUnseen is wrapped, next to ErrEnded, by the error of an Adopt that finds that a
// machine has ended while nobody watched it. A driver that cannot tell leaves it out.
var ErrUnseen = errors.New("it ended while nobody watched it")

// Driver runs machines on one virtual machine monitor.
type Driver interface {
	// Info says what the driver is and can do. It does no I/O.
	Info() Info

	// Start runs a machine from src. It returns when the VMM runs and executes the
	// guest; the guest's own readiness is for the caller to find out over DialGuest.
	// From Restore the machine is paused instead, and everything of it is loaded. A
	// driver that cannot do that returns an error that wraps errors.ErrUnsupported.
	Start(ctx context.Context, spec Spec, src Source) (Machine, error)

	// Adopt takes over the machine that an earlier process started with Spec.Dir
	// dir. It fails with an error that wraps ErrEnded when that machine no longer
	// runs; nothing of it is left then. At most one process may have adopted a
	// machine; a second Adopt fails rather than hangs.
	Adopt(ctx context.Context, dir string) (Machine, error)
}

// Info describes a driver on this host.
type Info struct {
	Name      string // "qemu", "cloud-hypervisor", "libkrun", "fake"
	Version   string // of the VMM, such as "7.2.22"
	Accel     string // "kvm", "hvf", "tcg", "none"
	Isolation Isolation
	Abilities Abilities
	// Identity names what saved machines depend on, next to their own shape: VMM,
	// machine type, CPU model. It is for keys of saved machines; Start compares more.
	Identity string
	Why      string // one line: why this accelerator, for doctor
}

// Isolation grades the boundary between a guest and the host.
type Isolation string

// The grades, told to users as they are.
const (
	Hardware Isolation = "hardware" // hardware virtualization
	Emulated Isolation = "emulated" // the boundary is the sandboxed, unprivileged VMM process
	None     Isolation = "none"     // the in-memory driver of tests
)

// Abilities says which optional interfaces a driver's machines implement.
type Abilities struct {
	Pause bool
	Save  bool // Saver, and the Driver is a MemoryLoader and starts from Restore
	Fork  bool // DiskForker
}

// Spec is the recipe of a machine: everything a start needs but its Source.
type Spec struct {
	ID      string // for process names and logs; unique on this host
	Dir     string // absolute path of a folder that exists and is this machine's alone
	Memory  size.Bytes
	VCPUs   int
	Kernel  string // path of an uncompressed kernel image (ELF vmlinux, or Image on arm64)
	Initrd  string // path of an uncompressed cpio
	Cmdline string // arguments added to the driver's own kernel command line
	Disks   []Disk // the guest finds each by its Name
	Network bool   // whether the machine has a network card, with the address CardAddress
}

// CardAddress is the hardware address of the network card of every machine: each has
// a network of its own, and a clone has nothing to change.
var CardAddress = [6]byte{0x02, 0x61, 0x65, 0x67, 0x69, 0x73}

// Disk is a block device of a machine.
type Disk struct {
	Name     string // the serial number the guest sees: "base", "disk"
	Path     string
	Format   DiskFormat
	ReadOnly bool // shared between machines, opened without locks
	// Backing is what lies under a QCOW2 disk, the nearest layer first. What the files
	// themselves say of their backing is ignored. Layers are read-only and shared.
	Backing []Layer
}

// Layer is a file under an overlay.
type Layer struct {
	Path   string
	Format DiskFormat
}

// DiskFormat is the format of a disk's file.
type DiskFormat string

// The formats.
const (
	Raw   DiskFormat = "raw"
	QCOW2 DiskFormat = "qcow2"
)

// Source is what a machine starts from: Boot or Restore.
type Source interface{ source() }

// Boot starts the kernel.
type Boot struct{}

func (Boot) source() {}

// Machine is one running VM.
type Machine interface {
	// Wait blocks until the VM has ended and returns how. Everything of it but its
	// logs is gone then. It returns ctx's cause when ctx ends first.
	Wait(ctx context.Context) (Exit, error)

	// Pause stops the vCPUs; memory stays. Pausing a paused machine does nothing.
	Pause(ctx context.Context) error

	// Resume lets the vCPUs run. Resuming a running machine does nothing. It spoils the
	// Memory of a save at this pause.
	Resume(ctx context.Context) error

	// Paused reports whether the vCPUs are stopped. It asks the VMM.
	Paused(ctx context.Context) (bool, error)

	// Kill ends the VM at once and returns when nothing of it is left but its logs.
	// It is not an error if the VM has ended by itself.
	Kill(ctx context.Context) error

	// DialGuest connects to the byte pipe whose other end is the guest's PID 1. One
	// connection at a time: a second waits for the first to close, or for ctx. Bytes
	// may be lost or repeated around a reconnect; package guestlink copes.
	DialGuest(ctx context.Context) (net.Conn, error)

	// AttachNetwork connects to the machine's network card: Ethernet frames, each
	// after its length as u32 big-endian. One connection at a time, like DialGuest.
	AttachNetwork(ctx context.Context) (net.Conn, error)

	// Usage tells what the VM costs the host now.
	Usage() (Usage, error)
}

// Usage is what a machine costs the host.
type Usage struct {
	Memory size.Bytes // resident, its share of what it shares with others
	PID    int        // of the VMM process, 0 if it has none
}

// Troubled is a Machine that knows what its guest has suffered from the host.
type Troubled interface {
	// Trouble returns what has gone wrong on the host under a guest that goes on, such
	// as a disk without room, in words for people; else nil. It does no I/O, and tells
	// the same after the machine has ended.
	Trouble() error

	// Suffered is closed when Trouble begins to tell of something.
	Suffered() <-chan struct{}
}

// Exit tells how a VM ended.
type Exit struct {
	Reason ExitReason
	Detail string // for people: a signal, the VMM's last words, the kernel's panic line
	// Console is the end of what the guest wrote to its console: a few KB of
	// whatever it likes, for logs.
	Console string
}

// ExitReason classifies the end of a VM.
type ExitReason string

// The reasons.
const (
	PoweredOff ExitReason = "powered_off" // the guest turned itself off in good order
	Panicked   ExitReason = "panicked"    // the guest's kernel or PID 1 died
	Killed     ExitReason = "killed"      // Machine.Kill
	Died       ExitReason = "died"        // the VMM process ended on its own or was killed from outside
)

// String returns the reason and its detail.
func (e Exit) String() string {
	if e.Detail == "" {
		return string(e.Reason)
	}
	return string(e.Reason) + ": " + e.Detail
}
