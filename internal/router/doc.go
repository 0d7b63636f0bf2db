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
// while its instance wakes is kept and passed on; a client that leaves meanwhile gives
// up the wake. A client that cannot be served is told why if it has begun to speak
// HTTP/1, and reset otherwise.
//
// A relay copies both ways. It passes on that a side has ended its direction, and that
// a side has broken, as what they are: a program that reads an end has read all.
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
