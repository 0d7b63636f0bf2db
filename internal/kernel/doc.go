// Package kernel provides the kernel that machines boot, and the initramfs with
// AegisVM's PID 1 in it.
//
// Any kernel of a distribution will do that has virtio, EROFS, overlay, ext4 and
// NFS as modules or built in. Ensure finds one: what set-up left in the home, else
// the host's own, else the distribution's kernel package for virtual machines,
// which is fetched and unpacked as an ordinary user. The result is a Kernel: an
// uncompressed image, which boots a quarter of a second faster than what
// distributions ship, and a folder of modules.
//
// EnsureInitrd packs the harness and the modules it loads into an uncompressed
// cpio archive. The archive names every file it needs and depends on nothing of
// the host: the order in which modules go in is decided here, from what the modules
// say of themselves (depmod's tables are not in packages).
//
// In the initramfs:
//
//	/init                       the harness
//	/dev/console, /dev/null     without them a Go program dies before main
//	/modules/early/NN-name.ko   for the control channel, network card and disks
//	/modules/root/NN-name.ko    for the root file system
//	/modules/workspace/...      for /workspace; nothing before the first mount needs them
//
// Within a set modules are loaded in the order of their names; a later set expects
// the earlier ones and repeats none of their modules.
//
// The package imports nothing of AegisVM but apt, atomicfile, fault and paths.
package kernel
