// Package rootfs makes the two disks a machine stands on, without root and
// without mounting anything.
//
// # The base image
//
// Image is a root file system that many machines share read-only: one
// uncompressed EROFS file, which the guest finds by the serial number "base",
// beside a small JSON file that describes it. Builder turns a tar stream into
// such a file. It keeps what a container image can say about a file: owner, mode
// with setuid and sticky bits, time of change, links of both kinds, device nodes
// and extended attributes. File data goes from the stream straight to the image;
// only the tree itself is held in memory, and its size is bounded.
//
// EROFS is written here because the format without compression is a few tables,
// and because the writers at hand either cannot make hard links or spool all data
// through a second file.
//
// # The instance disk
//
// Each machine has an ext4 disk of its own, found by the serial number "disk". It
// is a sparse copy of a template that mke2fs formats once; a larger disk is the
// same copy, made longer, and the guest grows its file system into it.
//
// The package imports nothing of AegisVM but atomicfile, fault, paths and size.
package rootfs
