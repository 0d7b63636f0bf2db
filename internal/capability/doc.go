// Package capability says what an instance may ask of its host for itself and for the
// children that it starts: it checks a wish against rights, and computes the rights of a
// child.
//
// It is pure: who asks, what they have and what they want come in as values. The host
// keeps the rights with the instance; a guest has nothing to show, and so nothing to forge.
// What counts what is live (children, open ports) is the core's, which knows it at the
// moment of the change.
//
// A list that is missing allows nothing; Any in a list allows all. A child's rights are
// always a subset of its parent's, with one generation less below it.
//
// The package is a leaf: it imports only other leaves of AegisVM.
package capability
