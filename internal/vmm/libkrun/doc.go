// Package libkrun is the driver for libkrun, a VMM that is a library: on macOS with
// HVF, where it is AegisVM's VMM, and on Linux with KVM.
//
// # Who does what
//
// The driver starts one process of the program aegis-vmm-worker (package worker) for
// each VM and tells it in a recipe (package recipe) what the VM is. The worker loads the
// library and becomes the VM. The daemon itself is never linked with a library.
//
// The guest is the same as under QEMU: it has a serial console, a virtio-serial port
// with the same name, disks and a network card. Two things it is told on its command
// line, as the VMM cannot: libkrun gives disks no serial numbers of our choice, so
// guestproto.DisksArg names them in their order; and it has no ACPI, so a guest that
// wants to end has to restart (guestproto.RestartArg).
//
// # What a worker is given
//
// Its sockets, pipes, kernel and initramfs are opened here and inherited. Where the
// daemon is root, the worker's libkrun opens the disks as root and becomes an
// unprivileged account before the guest runs.
//
// # What outlives the daemon
//
// Spec.Dir holds, while a machine runs:
//
//	vmm.json      identity of the process; its lock says who owns the machine
//	life          a socket; a connection to it ends when the process does
//	ctl net       the sockets of the guest's port and of its card
//	console vmm   named pipes from the serial console and from stderr
//	console.log vmm.log   what came out of the pipes, bounded; they stay behind
//
// A daemon that comes back takes the lock, checks that the process is the one it was,
// and connects again. The streams that libkrun has are never interrupted by that: the
// worker stands between, and passes on whole frames.
//
// # What it cannot do
//
// There is no saving: no templates, no hibernation, no snapshots, no forks. A pause is
// SIGSTOP, and the memory stays where it is. Disks are raw; libkrun would follow a
// qcow2 file to whatever it names as what lies under it.
//
// # How an end is told
//
// The connection to the life socket ends with the process, on every system and for
// children and adopted processes alike. libkrun's status is 0 for every end of a guest,
// so the console decides between a panic and a good end.
package libkrun
