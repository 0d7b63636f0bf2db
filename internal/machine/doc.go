// Package machine prepares what a virtual machine stands on: its folder, its disks
// and the recipe by which a driver starts it. It implements instance.Ground.
//
// Every start today is a boot of the kernel. Saved machines (templates,
// hibernation, snapshots, forks) will live here too: they are other sources for the
// same recipe.
//
// An instance's folder belongs to it alone and goes as a whole. The images are
// shared and only read.
package machine
