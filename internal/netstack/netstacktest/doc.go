// Package netstacktest plays the guest of a network, for tests: a TCP/IP stack with
// the guest's address at the other end of a connection that carries frames.
//
// Guest dials and listens as programs in a VM do, can be paused as a VM can, and sends
// any frame, which programs in a VM can not.
package netstacktest
