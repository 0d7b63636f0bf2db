// Package guestapi answers what programs in guests ask of the host: HTTP on connections
// that the guest's PID 1 relays over the link.
//
// # Trust
//
// Who asks is known by the connection, which comes from one instance's link; nothing in a
// request can say otherwise. Everything in it is hostile input: heads, bodies, lines, rates
// and what is kept in memory are bounded for each instance, and a guest that ignores its
// limits is served slowly (see peer). What an instance may do stands in its capabilities,
// which package capability judges; what counts (live children, open ports) the core checks
// as it makes the change. An instance other than the caller and its children is not there.
// Errors name no other instance and no path of the host.
//
// # Ownership
//
// A Server has one http.Server for all guests. The core hands connections to Serve and ends
// them with the run that they came from; Close waits for all that is under way.
//
// The package imports the core and leaves, no adapter and no other edge.
package guestapi
