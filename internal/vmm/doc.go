// Package vmm is the contract between AegisVM and the virtual machine monitors
// that run its machines. It is a manual for whoever writes a driver.
//
// # Facts, not policy
//
// A Driver starts machines, finds those that still run, and tells what happened
// to them. It never decides when a machine starts, sleeps or ends, never retries,
// and keeps no record beyond the files in Spec.Dir. Whoever calls it (package
// instance) holds the intent.
//
// # Lifetimes
//
// A context bounds a call, never a machine. When Start's context ends before it
// returns, Start ends the machine, removes what it put into Spec.Dir and returns
// the context's cause. Machines outlive the process that started them: a driver
// sets no parent-death signal, and puts what Adopt needs to find a machine again
// (sockets, the process's identity) into Spec.Dir. Losing a *Machine* value
// without Kill does not end the VM.
//
// # Concurrency
//
// A Driver's methods may be called together. So may a Machine's; the driver
// orders them. Wait may be called by many. After the VM has ended every method
// but Wait returns an error that wraps ErrEnded at once; calls in progress do the
// same.
//
// # Errors
//
// Errors that a person may meet are *fault.Error with Blame: fault.Host for
// missing programs, memory or disk, fault.Driver for a VMM that misbehaves,
// fault.Guest for a kernel that does not come up. After an error from Start
// nothing runs and Spec.Dir is as it was, but for vmm.log and console.log, which
// stay for the reader. After an error from Pause, Resume, Save or ForkDisk the
// machine is in the state it was in before, or it has ended.
//
// # Optional abilities
//
// A Machine may also be a Saver or a DiskForker, and a Driver a MemoryLoader;
// Info.Abilities says so without starting one.
//
// # Saved machines
//
// A saved machine is a paused machine: Save leaves the machine paused, and Start
// from Restore returns one that is. Its memory is either with its device state, in
// one file, or apart from it, a Memory that this process holds and can Store in a
// file. All else is made of that:
//
//	template   boot, pause, Save, Kill; Store, and keep the Memory. Every start is a
//	           Restore with that Memory. In a later life of the daemon: LoadMemory.
//	hibernate  pause, Save, Store, Saved.Sync, and only then Kill: until it is all
//	           there the machine is there too, and a wake is a Resume, also for a daemon that has
//	           adopted it. Later a wake is a Restore from the files; or, where the
//	           Memory was not closed yet, with it as the machine's Own. What Save
//	           returns as Whole needs neither Memory nor Store.
//	fork       of a machine that owns its memory: pause, Save, Kill. The source goes on
//	           as a Restore with the Memory, in its old folder, and so does each clone in its
//	           own. Each gets an empty overlay (package qcow2) on the disk that the source had.
//	           Or, where there is little memory: pause, ForkDisk, Save, Copy, Resume, and
//	           the clones start from the copy.
//	           of a clone: pause, ForkDisk, Save (Hasty), Resume; the clones start from the Memory, which
//	           the source does not hold. Where Save returned Whole instead, then, while the source
//	           runs: Restore, and without a Resume Save and Kill: what was Whole has
//	           become a Memory, for any number of clones.
//	snapshot   a fork without clones, and a Store.
//
// A Memory is the only thing here that lives in this process: a daemon that dies
// between Kill and Store takes it along. Clones that run need nobody.
//
// Package vmmtest holds the suite that every driver passes. The package imports
// only fault, size and the standard library.
package vmm
