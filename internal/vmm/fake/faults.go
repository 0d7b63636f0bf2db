package fake

import "time"

// Faults says what goes wrong. The zero value is a good machine.
type Faults struct {
	Start      error         // Start fails with it
	Restore    error         // Start from a saved machine fails with it
	StartDelay time.Duration // Start takes so long
	Adopt      error

	BootDelay time.Duration // the guest begins so long after Start
	BootHang  bool          // the guest never begins

	DieAfter   time.Duration // if not 0, the VMM dies so long after Start
	PanicAfter time.Duration // if not 0, the guest's kernel panics so long after Start

	Pause  error
	Resume error
	Fork   error // ForkDisk
	Dial   error // DialGuest
	Attach error // AttachNetwork
	Kill   error // Kill fails and the VM goes on: a VMM that hangs in the kernel

	Save      error
	SaveDelay time.Duration // Save takes so long
	SaveDies  bool          // the VMM dies while it is saved

	// Of the host, whatever the machine: as injected by Host.Inject.
	Store  error // Memory.Store fails with it
	Load   error // LoadMemory fails with it
	Damage bool  // what Save and Store write is not what they say
}
