// Package port is the guest's end of the pipe: the session layer beneath yamux.
//
// A pipe between host and guest loses bytes and repeats old ones whenever the host
// reconnects, and the guest may not notice that it did. So one goroutine, Port.Run,
// reads the device for the whole life of the VM and looks for openings in all that
// comes. An opening with a new nonce ends the session before it, also one whose
// writer is stuck, is echoed, and begins a session. Repetitions of an opening are
// dropped. At most one session exists at a time, and nothing of an old one can
// reach the host after the echo of a new one.
//
// The package runs on every system; package guest has the device of a real VM.
package port
