// Package daemon is the wiring of aegisd: it builds every part once, starts them in
// order, recovers what an earlier daemon left, serves, and stops all in the reverse
// order. It decides nothing else.
//
// Run is the daemon's life; Main is aegisd as a program around it: settings, log,
// signals, and word to whoever started it.
package daemon
