// Package cloudhypervisor is the driver for Cloud Hypervisor, a VMM for KVM on Linux.
// It is told what to do over its REST API, on a unix socket on which it is the
// server.
//
// # What a VMM process is given
//
// It opens all files by the names of descriptors that it inherits (/proc/self/fd/N),
// so that it needs no right on any path. Where the daemon is root it runs as an
// unprivileged account; then what it writes is made that account's own, and what it
// reads is made readable, inside folders that the account cannot enter. seccomp is
// on. Landlock is on where the kernel has it and the guest's memory is a file that
// has rules, which a memfd is not.
//
// # How the guest is met
//
// There is no serial port for us, and no network card whose frames the daemon could
// have without privileges. Both go over hybrid vsock: a connection to the VMM's
// socket, and the line "CONNECT port". The guest's PID 1 listens on a port for the
// pipe, and on another for the frames of a card that it makes itself (package
// guest/vsock). A CONNECT before it listens is refused, so connections are made again
// until the first is accepted; nobody above notices.
//
// # How machines are saved
//
// The guest's memory is one zone on a file in memory that this driver made. An owner
// maps it shared, a clone copy-on-write. Cloud Hypervisor leaves out of a snapshot
// what is mapped shared from a file that has a name: the file gets one for the
// moment of the save. Where it cannot (it is a memfd), and for clones, the snapshot's
// dump of the memory is the Memory. No memory is read when a machine is restored; the
// VMM's own modes of restoring it (copy, on-demand) are not needed.
//
// The configuration in a snapshot is thrown away: it is made anew from the Spec.
//
// Of an overlay the VMM keeps tables in its memory. A machine that has one is saved with a
// copy of its memory, and when it is ended after that it ends in good order, which writes
// them down.
//
// Disks cannot be forked while a machine runs. Whoever forks one saves it, ends it,
// and starts it on an overlay.
//
// # What outlives the daemon
//
// Spec.Dir holds, while a machine runs:
//
//	vmm.json      identity of the process; its lock says who owns the machine
//	api           the socket of the REST API
//	ch/           the VMM's own folder: its vsock socket, and what it saves
//	console vmm events   named pipes from the serial console, from stderr, and of its events
//	console.log vmm.log  what came out of the pipes, bounded; they stay behind
//
// docs/design/0023-cloud-hypervisor.md tells what was seen.
package cloudhypervisor
