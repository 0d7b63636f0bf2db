// Package tether carries messages between the host and agents in VMs: it stores them,
// brings them to the agent, and lets clients read what the agent says.
//
// # Into the guest
//
// Send stores a frame and returns; the frame wakes the instance. One goroutine for each
// instance, its courier, posts stored ingress frames to the agent in the order of their
// Seq, each until the agent has answered 2xx, and stores after each how far it got. While
// it has something to bring it holds the instance awake; an instance in which nobody takes
// messages is let go after a while (Limits.Patience), and what waits is tried again when
// the next message comes or the instance runs anew. From the receipt of a user's message
// on the hold stays until the agent has answered, says that it is idle, or has said nothing
// for Limits.Silence: an agent at work is not paused. One whose program or machine ends by
// itself at work is started again, a few times. An explicit pause, stop or disable
// is obeyed: holds end, frames wait.
//
// # Out of the guest
//
// Emit stores a frame of the agent's, and wakes whoever reads. Deltas are not stored: they
// go to a bounded ring in memory. Readers (Poll, Stream) pull from the store and the ring
// at their own pace, so that a slow one holds up nobody; one that is overtaken in the ring
// misses deltas, never frames. A reader takes the signal for "something came" before it
// looks, so nothing falls between its look and its wait.
//
// # The ledger
//
// All that is stored passes one goroutine, which puts what has queued up meanwhile into one
// transaction. Nobody is answered, and no reader is told, before that is durable.
//
// The package is an adapter: it knows the core (through Instances) and the store (through
// Rows) by the interfaces that it declares, and no other adapter.
package tether
