// Package bench measures AegisVM on this host: `aegis bench`.
//
// # What a figure is
//
// A figure is what a user waits for: it is taken through the public client from a real
// daemon, which runs in a home of its own below the user's. Beside it stands a floor: the
// same with less of AegisVM, from the same run. Samples of the two take turns, so that a
// busy host hits both; their ratio says more than either.
//
// # Parts
//
//	measurements   the table: a name, a unit, a floor, and how samples are taken
//	world          what samples are taken in; its parts are started when they are needed
//	product        a home with a daemon
//	bare           machines without a daemon: the driver, the link, the network
//	ninep          one of these with a 9p share of QEMU's own, and a kernel for that
//
// A new figure is a function that returns a sampler, and a line in the table. It must
// leave the world's shared parts as it found them: the server running, awake.
//
// The package is wiring, as the daemon is; nothing but cmd imports it.
package bench
