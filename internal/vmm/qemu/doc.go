// Package qemu is the driver for QEMU: the microvm machine on x86-64 and the virt
// machine on arm64, with hardware virtualization where it works and TCG where it
// does not.
//
// # What a VMM process is given
//
// QEMU opens nothing of ours by name. The kernel, the initramfs, the disks, the
// guest's memory, its console and its three listening sockets are opened here and
// inherited as descriptors, so that the process needs no right on any path: under
// a root daemon it runs as an unprivileged account that cannot even enter
// Spec.Dir. argv is a pure function of a recipe and the descriptors' numbers.
//
// # What outlives the daemon
//
// Spec.Dir holds, while a machine runs:
//
//	vmm.json      identity of the process; its lock says who owns the machine
//	qmp ctl net   the sockets on which QEMU listens, for ever: it is always the server
//	console vmm   named pipes from the serial console and from stderr
//	console.log vmm.log   what came out of the pipes, bounded; they stay behind
//
// A daemon that comes back takes the lock, checks that the process is the one it
// was (id, start time, boot id), and connects again. QEMU takes one client on each
// socket and leaves a second hanging without a word; the lock and one semaphore
// for each socket keep that from happening.
//
// The pipes bound what a guest can make us keep: a reader copies them into logs
// of limited size, and while there is no reader a full pipe drops what comes. QEMU
// itself holds a reading end, so that its writes never fail.
//
// # How machines are saved
//
// The guest's memory is a memfd. QEMU maps it shared, and a save then leaves it out
// (x-ignore-shared); or, in a clone, copy-on-write: then a save writes it too, and it is taken out of the state into
// a memfd of its own, on all versions alike (docs/design/0021-memory-apart.md). A memfd that
// clones start from is sealed first: QEMU can punch holes into a file that it has
// mapped privately, and whoever has taken over a VMM could do worse. There is no
// balloon.
//
// States go through a pipe in both directions, summed and unpacked on their way;
// QEMU never gets the end of one that is not what was saved. The memory of a machine
// that an earlier daemon started is found through /proc/<pid>/fd.
//
// # How an end is told
//
// The pidfd says that the process has ended, for children and adopted processes
// alike; QMP's SHUTDOWN event, the wait status where there is one, and the last
// lines of console and stderr say why.
package qemu
