// Package secret has what all parts say of secrets in the same words: a Value that no
// print, log or encoding shows, the form of names, and the limits of values.
//
// A Value goes from the edge where it comes in to the place where it is used, and is
// turned back into a string nowhere else: Reveal is the one word to look for in a
// review. A Sealed is what is stored of it; package vault seals and opens.
//
// The package is a leaf: it imports only other leaves of AegisVM.
package secret
