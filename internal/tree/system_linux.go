package tree

import (
	"io/fs"
	"os"
	"slices"
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
