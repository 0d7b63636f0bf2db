//go:build unix

package rootfs

import (
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
