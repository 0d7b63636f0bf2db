package tree

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// nonblock keeps an open from waiting, should a pipe have taken a file's place.
const nonblock = unix.O_NONBLOCK

// pseudo are file systems whose files are not data.
var pseudo = []int64{
	unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEVPTS_SUPER_MAGIC,
	unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC, unix.BPF_FS_MAGIC,
}

// isPseudo reports whether a folder is the root of such a file system: one comes to
// /proc on the way, and has to ask for it to get it.
func isPseudo(parent *os.Root, base string, fi fs.FileInfo) bool {
	above, err := parent.Stat(".")
	if err != nil {
		return false
	}
	a, okA := statOf(above)
	b, okB := statOf(fi)
	if !okA || !okB || a.Dev == b.Dev {
		return false
	}
	f, err := parent.Open(base)
	if err != nil {
		return false // the walk meets the same error
	}
	defer func() { _ = f.Close() }() // only read
	var st unix.Statfs_t
	return unix.Fstatfs(int(f.Fd()), &st) == nil && slices.Contains(pseudo, int64(st.Type)) //nolint:unconvert // differs between architectures
}

// setLinkTime sets the modification time of a symlink, as far as that can be done.
func setLinkTime(dir *os.Root, name string, t time.Time) {
	f, err := dir.Open(".")
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }() // only read
	ts, err := unix.TimeToTimespec(t)
	if err != nil {
		return
	}
	// A symlink with the time of its making is as good.
	_ = unix.UtimesNanoAt(int(f.Fd()), name, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

// xattrs returns the extended attributes of what is called name in a folder. A file
// system that has none has none. The buffer has room for the longest list, and for the
// longest value (XATTR_LIST_MAX and XATTR_SIZE_MAX, both 64 KiB).
func xattrs(dir *os.File, name string, buf []byte) (map[string]string, error) {
	path := "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + name
	n, err := unix.Llistxattr(path, buf)
	switch {
	case errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.ENOENT):
		return nil, nil
	case err != nil:
		return nil, os.NewSyscallError("listxattr", err)
	case n == 0:
		return nil, nil
	}
	all := map[string]string{}
	for attr := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		n, err := unix.Lgetxattr(path, attr, buf)
		if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
			continue // gone meanwhile, or not for this user
		}
		if err != nil {
			return nil, os.NewSyscallError("getxattr", err)
		}
		all[attr] = string(buf[:n])
	}
	return all, nil
}

// isOpaque reports whether a folder of an overlay's upper layer hides those below it.
func isOpaque(dir *os.File) bool {
	var b [1]byte
	n, err := unix.Fgetxattr(int(dir.Fd()), "trusted.overlay.opaque", b[:])
	return err == nil && n == 1 && b[0] == 'y'
}
