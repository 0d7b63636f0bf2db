// Package machine prepares what a virtual machine stands on: its folder, its disks,
// and what it starts from. It implements instance.Ground.
//
// # Three ways to start
//
//	wake   the instance's own memory, which Save wrote when it hibernated
//	clone  a template: a machine that has booted the same image. If the instance has no
//	       disk yet, one with the root file system on a new disk, of which it gets a
//	       copy, and a workspace mounted; else one that has seen no disk
//	cold   the kernel boots
//
// Prepare chooses the first that there is. A template that is missing is made on the
// way, once however many want it: booted, paused and saved. It serves at once from this
// process's memory; its files are written in the background, the manifest last. One of
// which no machine starts is dropped, and the next start makes another.
//
// # What is whole
//
// Saved memory is in data/instances/<id>/saved, a template in data/templates/<key>. A
// folder with a manifest is whole. Saved memory appears under its name by a rename when
// all of it is on disk, and is withdrawn by another before the machine that was loaded
// with it runs: memory must never wake on a disk that has moved on. Nothing of a
// template is keyed by a disk; hibernated memory is not keyed by kernel and harness,
// which it has in it.
//
// An instance's folder belongs to it alone and goes as a whole. The images are
// shared and only read.
package machine
