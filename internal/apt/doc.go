// Package apt fetches packages of Debian and Ubuntu as an ordinary user, beside
// the host's own package management and without touching it.
//
// A Client keeps its lists and downloads in a folder of its own. It uses the
// host's trusted keys, and of the host's sources those of the distribution itself,
// so that a mirror set up there is used and a third party's archive neither slows
// it nor fails it. apt verifies what it downloads.
//
// The package is a leaf: it imports nothing of AegisVM.
package apt
