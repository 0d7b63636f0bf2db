// Package probe remembers what was found out about this host until it restarts.
//
// Some facts about a host can only be had by a trial that costs seconds, such as
// whether its KVM runs a guest. Once makes a trial at most once for each boot of
// the host and each key, for all homes and all processes of a user: verdicts lie
// outside of AEGIS_HOME in a folder that only the user can write, so that nobody
// else can plant one.
//
// Drivers use it; it knows none of them, and imports nothing of AegisVM.
package probe
