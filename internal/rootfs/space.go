//go:build unix

package rootfs

import (
	"io/fs"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/size"
)

// FreeSpace returns how much a user without special rights can still write to the
// file system of path.
func FreeSpace(path string) (size.Bytes, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, err
	}
	return size.Bytes(uint64(st.Bavail) * uint64(st.Bsize)), nil //nolint:gosec,unconvert // the types differ between systems
}

// Occupied returns what a file takes on its disk, which is less than its length
// where it is sparse.
func Occupied(fi fs.FileInfo) size.Bytes {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return size.Bytes(st.Blocks) * 512 // POSIX counts blocks in units of 512
	}
	return size.Bytes(fi.Size())
}
