// Package buildinfo says which build of AegisVM this program is.
//
// The package is a leaf: it imports nothing of AegisVM. It is built into PID 1.
package buildinfo
