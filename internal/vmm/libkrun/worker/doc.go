// Package worker is the program aegis-vmm-worker: a process that becomes one VM. It
// loads libkrun, tells it what the VM is, and enters it; libkrun ends the process when
// the guest ends.
//
// The library has descriptors where AegisVM has sockets that a daemon connects to,
// leaves and connects to again. What lies between is here: one goroutine for each
// direction of the guest's port and of the network card. They stand still with the rest
// of the process while the VM is paused, which is SIGSTOP.
//
// The package is the only one that loads libraries. A program that imports it is linked
// against the C library of the system.
package worker
