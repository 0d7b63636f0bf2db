// Package httpapi is the API edge: it serves HTTP on the daemon's unix socket and
// translates. A request is checked here for form and origin; what it means is
// decided by the core.
//
// Every route stands in one table (routes.go) and passes one gate. Every error
// leaves as an api.Error whose status comes from one table (errors.go).
//
// An attach stream begins as a request with "Upgrade: aegis-attach". Once the
// program runs the server answers 101 and relays frames (relay.go). A run is its
// connection: when the client goes, at whatever moment, the run is closed, which
// ends and deletes it; when the program ends, the run is closed first and the exit
// frame sent after.
//
// The package declares what it needs of the core as small interfaces (Runner) and
// must not import adapters.
package httpapi
