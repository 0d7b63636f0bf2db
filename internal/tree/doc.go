// Package tree carries files and folders as a tar stream (PAX) from one machine to
// another: Source packs, Target unpacks. Both ends of `aegis cp` are made of it, the
// CLI on the host and PID 1 in the guest.
//
// # The stream
//
// The first entry is the root of what is copied, named by its last component or ".".
// Everything else lies below it. Folders come before what is in them. Files,
// folders, symlinks and hard links are carried with their modes, modification times
// and numeric owners; devices, sockets and pipes are left out, with a note. Neither
// end keeps more than one buffer and the path it is at, however large the tree.
//
// # Where things land
//
// As with `docker cp`: onto a folder that exists, the root goes into it; onto
// nothing, it becomes that; a source that ends in "/." has the name "." and is
// poured into the target. See OpenTarget.
//
// # Trust
//
// A stream may come from an enemy. Nothing it contains can reach outside of the
// target: every operation goes through an os.Root, symlinks are never walked
// through, and whatever stands in the way of an entry is replaced by name, never
// written into. Absolute names, ".." and entries beside the root are refused.
// Set-user-ID and set-group-ID bits do not survive a change of the owner, unless
// Options say so. Each file is written under a temporary name and renamed when it is
// whole, so that an interrupted copy leaves no half file behind a final name.
//
// The package is a leaf. It is built into PID 1 and imports nothing of AegisVM.
package tree
