// Package vmmtest is the suite that every driver of package vmm passes.
//
//	func TestDriver(t *testing.T) {
//		vmmtest.Run(t, func(t *testing.T) vmmtest.Harness { ... })
//	}
//
// It checks what the contract promises of a driver: starting, ending, pausing,
// adopting, connecting, and that nothing is left behind. What it needs of a guest
// is Serve: PID 1 returns every byte that it gets, and obeys three words.
// Package guestinit is such a PID 1 for real machines.
package vmmtest
