//go:build linux

package pid1

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Where the parts of the root are mounted, in the initramfs. The switch of the root
// hides them.
const (
	baseDir = "/aegis/base"
	diskDir = "/aegis/disk"
	rootDir = "/aegis/root"
)

// mountBase mounts the image.
func mountBase() error {
	for _, dir := range []string{baseDir, diskDir, rootDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	base, ok := blockDevice("base")
	if !ok {
		return fmt.Errorf("the VM has no disk named %q", "base")
	}
	if err := (mount{base, baseDir, "erofs", unix.MS_RDONLY, ""}).do(); err != nil {
		return fmt.Errorf("the image: %w", err)
	}
	return nil
}

// mountRoot puts the root file system together, on an instance's disk of that many
// bytes (0 is any), and makes it the root. It returns the folder on the disk for the
// harness's own files.
func mountRoot(disk int64) (state *os.File, err error) {
	if err := mountDisk(disk); err != nil {
		return nil, fmt.Errorf("the instance's disk: %w", err)
	}
	for _, dir := range []string{"upper", "work", "state"} {
		mode := os.FileMode(0o700)
		if dir == "upper" {
			mode = 0o755 // it is the mode of /
		}
		if err := os.Mkdir(diskDir+"/"+dir, mode); err != nil && !os.IsExist(err) {
			return nil, err
		}
	}
	if state, err = os.Open(diskDir + "/state"); err != nil {
		return nil, err
	}
	overlay := "lowerdir=" + baseDir + ",upperdir=" + diskDir + "/upper,workdir=" + diskDir + "/work"
	if err := (mount{"root", rootDir, "overlay", 0, overlay}).do(); err != nil {
		return nil, err
	}
	return state, switchRoot(rootDir)
}

// mountDisk mounts the instance's disk, grown to the size of its device. A VM
// without one keeps its changes in memory.
func mountDisk(size int64) error {
	dev, ok := blockDevice("disk")
	if !ok {
		return mount{"disk", diskDir, "tmpfs", 0, "mode=0755"}.do()
	}
	if err := refresh(dev, size); err != nil {
		return err
	}
	if err := mountExt4(dev); err != nil {
		return err
	}
	dir, err := os.Open(diskDir)
	if err != nil {
		return err
	}
	defer dir.Close() //nolint:errcheck // read only
	if err := grow(dev, dir); err != nil {
		console("grow the disk: %v", err) // it works at its old size
	}
	return nil
}

// mountExt4 mounts the disk without what ext4 does in the background after a mount:
// to write zeros to tables of inodes, which on a sparse file are zeros, and to read maps
// ahead. Clones would all do it, each while its program starts.
func mountExt4(dev string) error {
	m := mount{dev, diskDir, "ext4", unix.MS_NOATIME, "noinit_itable,no_prefetch_block_bitmaps"}
	err := m.do()
	if errors.Is(err, unix.EINVAL) { // kernels before 5.13
		m.data = "noinit_itable"
		err = m.do()
	}
	return err
}

// resizeFS is EXT4_IOC_RESIZE_FS: the argument is the new number of blocks.
const resizeFS = 0x40086610

// grow enlarges the ext4 on dev to the size of the device. dir is a folder on it.
func grow(dev string, dir *os.File) error {
	blocks, blockSize, err := ext4Size(dev)
	if err != nil {
		return err
	}
	d, err := os.Open(dev)
	if err != nil {
		return err
	}
	defer d.Close() //nolint:errcheck // read only
	size, err := d.Seek(0, 2)
	if err != nil {
		return err
	}
	want := uint64(size) / blockSize //nolint:gosec // never negative
	if want <= blocks {
		return nil
	}
	//nolint:gosec // the ioctl takes a pointer
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, dir.Fd(), resizeFS, uintptr(unsafe.Pointer(&want))); errno != 0 {
		return fmt.Errorf("from %d to %d blocks: %w", blocks, want, errno)
	}
	return nil
}

// ext4Size reads the superblock: the number of blocks, and the bytes in each.
func ext4Size(dev string) (blocks, blockSize uint64, err error) {
	f, err := os.Open(dev)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close() //nolint:errcheck // read only
	sb := make([]byte, 1024)
	if _, err := f.ReadAt(sb, 1024); err != nil {
		return 0, 0, err
	}
	if binary.LittleEndian.Uint16(sb[0x38:]) != 0xef53 {
		return 0, 0, fmt.Errorf("%s has no ext4", dev)
	}
	blocks = uint64(binary.LittleEndian.Uint32(sb[0x4:])) | uint64(binary.LittleEndian.Uint32(sb[0x150:]))<<32
	return blocks, 1024 << (binary.LittleEndian.Uint32(sb[0x18:]) & 7), nil
}

// switchRoot makes dir the root of this process, and of all that follow. What is
// mounted elsewhere in the initramfs stays, out of sight.
func switchRoot(dir string) error {
	if err := unix.Chdir(dir); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return unix.Chdir("/")
}
