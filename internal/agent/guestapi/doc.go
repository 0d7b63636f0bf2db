// Package guestapi is the agent's way to its host: the Guest API on 127.0.0.1:7777, as far
// as an agent needs it.
//
// Connections to the host break whenever the machine is paused or saved, or the daemon is
// replaced. So everything that matters is tried again until it is answered: a frame keeps
// its msg_id, by which the host knows it.
package guestapi
