// Package router lets clients on the host reach the ports of instances, and wakes the
// instances that sleep.
//
// Doors opens public ports: whatever comes in on one is joined, byte for byte, with a
// connection into the guest. Front is the one HTTP address behind which all instances
// are found by name.
//
// # The path of a connection
//
// Accept, hold, wake, dial, relay; nothing on it sleeps or polls. What a client says
// while its instance wakes is kept and passed on. A relay copies both ways and passes
// half-closes on; it ends when both directions have ended, or one has failed.
//
// # Who keeps what awake
//
// A connection through a door holds its instance for as long as it is open, a request
// through Front until it is answered. Front keeps connections to guests for later
// requests; those hold nothing and end with the machine.
//
// # Trust
//
// Clients are the host's users and whatever their browsers load. Front answers only to
// names of this host, so that no web site can reach an instance under a name of its
// own; it serves no API.
//
// The package implements instance.Doors and must not import other adapters.
package router
