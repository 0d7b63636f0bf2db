// Package guestproto is the conversation between the host and PID 1 of a VM,
// version 1: every message and every stream header, once, for both ends.
//
// # Layers
//
// The pipe is one byte channel for each VM (a virtio-serial port, or vsock). It
// loses and replays bytes whenever either end reconnects, so a session layer
// stands on it: the host repeats Magic+Nonce every HelloInterval until the guest
// echoes it, and discards everything before the echo; the guest scans all input
// for the magic, and a new nonce ends the session before it. See Opening and
// Scanner.
//
// On a session runs yamux, the host as its client. Each yamux stream starts with
// one StreamHeader and one StreamReply, both as Messages. What follows depends on
// the kind:
//
//   - control: Messages both ways. The first request is Hello, once for each
//     session; the guest answers nothing else before it. Requests carry an ID and
//     get one answer; they may be sent again in a later session, and doing so
//     changes nothing (an exec id that exists is not spawned twice). The guest's
//     Events carry no ID.
//   - attach: frames of package frame. The guest sends the process's output log
//     from the offset asked for, the Exit frame last. The host sends Stdin, EOF,
//     Resize, Signal, and Ack with the offset up to which it has kept the log. The
//     guest sends Ack with the number of stdin bytes that the process's pipe has
//     taken. At most StdinWindow bytes may be on their way, so that input which a
//     process does not read never holds up the frames behind it.
//   - dial: raw bytes of a connection to an address inside the guest.
//   - copy: a tar stream out of or into the guest's files, in frames. See StreamCopy.
//   - api: raw bytes of a connection that a program in the guest makes to the host.
//     See StreamAPI.
//
// # Output logs
//
// The output of a process is one log of frames (Stdout, Stderr, Exit); offsets
// count its encoded bytes. The guest keeps what the host has not acknowledged, in
// bounded memory and then, where the process has a ring, in a file on the
// instance's disk; when both are full the process blocks. The Exit frame is the
// log's last record, so an exit status waits for its acknowledgement like any
// other output, over pauses, saves and new sessions.
//
// # Ownership
//
// In Hello the host names the processes it still owns, each with the offset up
// to which it holds the log. The guest kills every other process and forgets it.
//
// Everything the guest sends is hostile input to the host: decoders here bound
// sizes and never trust a length. The package imports only package frame.
package guestproto
