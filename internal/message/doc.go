// Package message is what the tether's two ends and its store agree on: which frames
// are well-formed and which way they go (Ingress, Egress), and how they are asked for
// (Query) and stored (Entry, Keep).
//
// Frames are api.Frame. Whoever takes one in, from a client or from a guest, calls
// Ingress or Egress on it first; nothing behind that looks at its form again.
//
// The package is a leaf: it imports api and fault of AegisVM, nothing else.
package message
