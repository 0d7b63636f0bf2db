// Package recipe is what the driver for libkrun and its worker program say to each
// other: a Recipe goes to a worker that is to run a VM, Facts come back from one that
// only looks at the library.
//
// It stands apart from package worker so that the daemon is not linked with the means
// of loading a library: those make a program dynamic.
package recipe
