package nfs

import (
	"encoding/binary"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// place is an inode of the host, pinned by a descriptor (O_PATH, or one that is open
// for reading and writing). What is done to a place is done to that inode, wherever
// its names have gone meanwhile. Errors are of type unix.Errno.
type place struct{ fd int }

var nowhere = place{-1}

func (p place) close() { _ = unix.Close(p.fd) } // nothing is buffered

// openFolder opens a folder by a path of the host's user.
func openFolder(dir string) (place, error) {
	fd, err := again1(func() (int, error) {
		return unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	return place{fd}, err
}

// confined is how every path is resolved: below its start, without links, without
// mounts.
const confined = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

// openat2 is a variable for tests of kernels that have none.
var openat2 = unix.Openat2

// below opens what a path of plain names leads to; a symlink as itself.
func (p place) below(path string) (place, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: confined}
	fd, err := again1(func() (int, error) { return openat2(p.fd, path, &how) })
	switch {
	case err == nil:
		return place{fd}, nil
	case isErr(err, unix.ENOSYS, unix.EPERM): // before Linux 5.6, or a filter that does not know it
		return byName(p, path)
	}
	return nowhere, err
}

// enter opens one name, without looking at what it is.
func (p place) enter(name string) (place, error) {
	fd, err := again1(func() (int, error) {
		return unix.Openat(p.fd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	return place{fd}, err
}

// itself is the path of the pinned inode, for calls that take no descriptor.
func (p place) itself() string { return "/proc/self/fd/" + strconv.Itoa(p.fd) }

const statMask = unix.STATX_BASIC_STATS | unix.STATX_BTIME

func (p place) stat() (stat, error) { return statAt(p.fd, "", unix.AT_EMPTY_PATH) }

// statChild returns what a name in this folder is.
func (p place) statChild(name string) (stat, error) {
	return statAt(p.fd, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT)
}

func statAt(fd int, name string, flags int) (stat, error) {
	var st unix.Statx_t
	if err := again(func() error { return unix.Statx(fd, name, flags, statMask, &st) }); err != nil {
		return stat{}, err
	}
	at := func(t unix.StatxTimestamp) moment { return moment{t.Sec, t.Nsec} }
	mode := uint32(st.Mode)
	s := stat{
		id:    ident{dev: unix.Mkdev(st.Dev_major, st.Dev_minor), ino: st.Ino},
		kind:  modeTypes[mode&bitsFormat],
		mode:  mode & bitsAll,
		links: st.Nlink, uid: st.Uid, gid: st.Gid,
		size: st.Size, used: st.Blocks << 9,
		rdev:  [2]uint32{st.Rdev_major, st.Rdev_minor},
		atime: at(st.Atime), mtime: at(st.Mtime), ctime: at(st.Ctime),
		crossing: st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0,
	}
	if st.Mask&unix.STATX_BTIME != 0 {
		s.id.gen = uint64(st.Btime.Sec)*1e9 + uint64(st.Btime.Nsec) //nolint:gosec // any number will do
	}
	return s, nil
}

// open opens the pinned file for reading or writing.
func (p place) open(flags int) (int, error) {
	return again1(func() (int, error) { return unix.Open(p.itself(), flags|unix.O_CLOEXEC|unix.O_NOCTTY, 0) })
}

// entries lists a folder, in no order and without "." and "..", until f is false.
func (p place) entries(f func(entry) bool) error {
	fd, err := p.open(unix.O_RDONLY | unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // read only
	buf := make([]byte, 32<<10)
	for {
		n, err := again1(func() (int, error) { return unix.Getdents(fd, buf) })
		if err != nil || n == 0 {
			return err
		}
		for b := buf[:n]; len(b) > direntName; {
			// struct linux_dirent64: d_ino u64, d_off s64, d_reclen u16, d_type u8, d_name.
			size := int(binary.NativeEndian.Uint16(b[16:]))
			if size <= direntName || size > len(b) {
				return unix.EIO
			}
			name := string(b[direntName:size])
			if i := strings.IndexByte(name, 0); i >= 0 {
				name = name[:i]
			}
			e := entry{name: name, ino: binary.NativeEndian.Uint64(b), kind: modeTypes[uint32(b[18])<<12]}
			b = b[size:]
			if e.name != "." && e.name != ".." && !f(e) {
				return nil
			}
		}
	}
}

const direntName = 19

// layered reports whether the file system copies files when they are written to, which
// gives them another time of birth.
func (p place) layered() bool {
	var st unix.Statfs_t
	return again(func() error { return unix.Fstatfs(p.fd, &st) }) == nil && int64(st.Type) == unix.OVERLAYFS_SUPER_MAGIC //nolint:unconvert // differs between architectures
}

func (p place) readlink() (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := again1(func() (int, error) { return unix.Readlinkat(p.fd, "", buf) })
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

func (p place) chmod(mode uint32) error {
	return again(func() error { return unix.Chmod(p.itself(), mode) })
}

func (p place) chown(uid, gid int) error {
	return again(func() error { return unix.Fchownat(p.fd, "", uid, gid, unix.AT_EMPTY_PATH) })
}

// utimes sets access and modification time.
func (p place) utimes(ts [2]unix.Timespec) error {
	return again(func() error { return unix.UtimesNanoAt(unix.AT_FDCWD, p.itself(), ts[:], 0) })
}

// link gives the pinned inode a name in another folder.
func (p place) link(to place, name string) error {
	return again(func() error {
		return unix.Linkat(unix.AT_FDCWD, p.itself(), to.fd, name, unix.AT_SYMLINK_FOLLOW)
	})
}

func (p place) getxattr(attr string, buf []byte) (int, error) {
	return again1(func() (int, error) { return unix.Getxattr(p.itself(), attr, buf) })
}

// getxattrChild is getxattr for a name in this folder, not followed if it is a link.
func (p place) getxattrChild(name, attr string, buf []byte) (int, error) {
	return again1(func() (int, error) { return unix.Lgetxattr(p.itself()+"/"+name, attr, buf) })
}

func (p place) setxattr(attr string, value []byte) error {
	return again(func() error { return unix.Setxattr(p.itself(), attr, value, 0) })
}

func (p place) removexattr(attr string) error {
	return again(func() error { return unix.Removexattr(p.itself(), attr) })
}

// create makes a file that was not there and opens it.
func (p place) create(name string, mode uint32) (int, error) {
	return again1(func() (int, error) {
		return unix.Openat(p.fd, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
	})
}

func (p place) mkdir(name string, mode uint32) error {
	return again(func() error { return unix.Mkdirat(p.fd, name, mode) })
}

func (p place) symlink(target, name string) error {
	return again(func() error { return unix.Symlinkat(target, p.fd, name) })
}

// mknod makes a FIFO or a socket.
func (p place) mknod(name string, kind fileType, mode uint32) error {
	format := uint32(unix.S_IFIFO)
	if kind == typeSocket {
		format = unix.S_IFSOCK
	}
	return again(func() error { return unix.Mknodat(p.fd, name, format|mode, 0) })
}

func (p place) unlink(name string, folder bool) error {
	flags := 0
	if folder {
		flags = unix.AT_REMOVEDIR
	}
	return again(func() error { return unix.Unlinkat(p.fd, name, flags) })
}

func (p place) rename(name string, to place, newName string) error {
	return again(func() error { return unix.Renameat(p.fd, name, to.fd, newName) })
}

// startSync begins to write a file's data to the disk.
func startSync(fd int) {
	_ = unix.SyncFileRange(fd, 0, 0, unix.SYNC_FILE_RANGE_WRITE) // who waits for it meets the error
}

// syncData puts a file's data on the disk, with what is needed to read it again.
func syncData(fd int) error { return again(func() error { return unix.Fdatasync(fd) }) }

// errNoXattr is what the host says of an attribute that a file has not.
const errNoXattr = unix.ENODATA

// caseInsensitive says how names are compared.
const caseInsensitive = false
