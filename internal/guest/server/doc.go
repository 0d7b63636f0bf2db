// Package server is the guest's side of the protocol: it answers the host's
// requests on top of port, process and a System.
//
// One yamux session at a time; each of its streams has a goroutine, and the session
// ends when all of them have. Requests run outside of the session they came in, so
// that one which is repeated in a later session finds its answer. What is particular
// to a real VM (mounts, clock, power) is behind System; the package itself runs
// anywhere.
package server
