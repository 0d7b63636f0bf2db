// Package atomicfile puts whole files where others look for them: what has the
// final name is complete, at any moment, also after a crash.
//
// Everything unfinished has a name that begins with Prefix, so that Sweep can
// remove what a killed process left.
//
// The package is a leaf: it imports nothing of AegisVM.
package atomicfile
