// Package vsock is how PID 1 meets the host where the VMM has no serial port for
// it: it listens on two vsock ports, one for the pipe (Device) and one for the
// frames of a network card that is a tap device of its own (Card), as not every
// VMM can give the daemon the frames of a card of its.
//
// The host connects; a connection that it makes takes the place of the one before,
// and a connection that did not come from the host is closed. After a start from a
// saved machine the kernel ends the connections that were, and listens on.
//
// Card passes frames on as they are: what is in them is for the kernel on one end,
// and for the daemon on the other. All but the framing is Linux only.
package vsock
