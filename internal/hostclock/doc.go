// Package hostclock tells when the clock of this host jumps: when somebody sets it, and
// when a laptop wakes. The clocks in VMs do not jump with it, so that whoever runs VMs has
// to set them.
//
// The package is a leaf: it imports nothing of AegisVM.
package hostclock
