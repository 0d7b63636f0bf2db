// Package presence is how programs find out whether the daemon of a home is
// there: the lock that it holds for as long as it lives, the lock under which it is
// started and stopped, and the address of its socket.
//
// The locks are POSIX record locks: the kernel names their holder and gives them
// back at the death of the process, so there is nothing to go stale. They belong to
// a process: within one, a second lock on the same file succeeds, and closing any
// descriptor of the file gives the first one back. So the daemon's own process
// must not ask for Holder.
//
// The package is a leaf: it imports nothing of AegisVM.
package presence
