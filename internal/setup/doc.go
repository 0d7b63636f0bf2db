// Package setup fills a home with what machines need and names what the host
// lacks: it is behind `aegis setup`.
//
// Run goes through a few steps. Each looks whether its result is there, makes it
// under a name that nothing looks for, and renames it when it is whole. So a set-up
// that was killed is continued by the next one, two at once do not collide (a lock
// file in the home orders them), and one with nothing to do takes no time.
//
//  1. host programs: QEMU, e2fsprogs and, while there is no base image, mmdebstrap.
//     Root gets them installed; others are asked, or told the command.
//  2. kernel: package kernel.
//  3. disk template: package rootfs.
//  4. base image: a minimal userland of the host's own release, built by mmdebstrap
//     from the host's own mirrors, and turned into an image as it comes. An image
//     that is there is never built again: disks of instances depend on it.
//
// A folder named as Cache keeps kernel and image for other homes. Set-up starts no
// daemon and no machine.
package setup
