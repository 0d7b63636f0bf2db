// Package pid1 makes a Linux kernel the machine that package server serves: it is
// what /init of a VM runs.
//
// Run mounts what a userland expects, loads the modules the pipe needs and opens
// the pipe, so that the host hears from the guest as early as possible; meanwhile
// it puts the root file system together: the image (EROFS, disk "base") under the
// instance's disk (ext4, disk "disk") as an overlay, which becomes the root. A root
// that cannot be mounted is told to the host, never a silent hang.
//
// Every process the host starts has its own session and its own cgroup below
// /sys/fs/cgroup/aegis, so that one write freezes them all and one write kills all
// of an exec. Orphans are reaped by pid, next to the children that someone waits
// for.
//
// If PID 1 dies the kernel panics, which the host sees; so nothing here recovers
// from a panic, and stderr is the console.
package pid1
