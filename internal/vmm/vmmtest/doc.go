// Package vmmtest is the suite that every driver of package vmm passes.
//
//	func TestDriver(t *testing.T) {
//		vmmtest.Run(t, func(t *testing.T) vmmtest.Harness { ... })
//	}
//
// It checks what the contract promises of a driver: starting, ending, pausing,
// adopting, connecting, saving and forking where the driver can, and that nothing
// is left behind. What it needs of a guest is Guest: PID 1 returns every byte that
// it gets, obeys some words, and has something to remember. Package guestinit is
// such a PID 1 for real machines.
package vmmtest
