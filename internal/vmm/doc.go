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
// stay for the reader. After an error from Pause, Resume or Save the machine is in
// the state it was in before, or it has ended.
//
// # Optional abilities
//
// A Machine may also be a Saver or a DiskForker; Info.Abilities says so without
// starting one.
//
// Package vmmtest holds the suite that every driver passes. The package imports
// only fault, size and the standard library.
package vmm
