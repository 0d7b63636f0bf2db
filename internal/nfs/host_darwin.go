package nfs

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// place is an inode of the host: an open descriptor (name is ""), or a name in an open
// folder. There is no O_PATH here, so a name may come to be another inode's; callers
// compare identities after they have opened one. Errors are of type unix.Errno.
type place struct {
	fd   int
	name string
}

var nowhere = place{fd: -1}

func (p place) close() { _ = unix.Close(p.fd) } // nothing is buffered

// openFolder opens a folder by a path of the host's user.
func openFolder(dir string) (place, error) {
	fd, err := again1(func() (int, error) { return unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) })
	return place{fd: fd}, err
}

// below opens what a path of plain names leads to; a symlink as itself.
func (p place) below(path string) (place, error) { return byName(p, path) }

// enter opens one name, without looking at what it is.
func (p place) enter(name string) (place, error) {
	st, err := p.statChild(name)
	if err != nil {
		return nowhere, err
	}
	if st.kind == typeFolder {
		fd, err := again1(func() (int, error) {
			return unix.Openat(p.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		})
		return place{fd: fd}, err
	}
	fd, err := unix.Dup(p.fd)
	if err != nil {
		return nowhere, err
	}
	unix.CloseOnExec(fd)
	return place{fd: fd, name: name}, nil
}

func (p place) stat() (stat, error) {
	if p.name != "" {
		return p.statChild(p.name)
	}
	var st unix.Stat_t
	if err := again(func() error { return unix.Fstat(p.fd, &st) }); err != nil {
		return stat{}, err
	}
	return statOf(&st), nil
}

// statChild returns what a name in this folder is.
func (p place) statChild(name string) (stat, error) {
	var st unix.Stat_t
	if err := again(func() error { return unix.Fstatat(p.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) }); err != nil {
		return stat{}, err
	}
	return statOf(&st), nil
}

// statOf leaves the time of birth out: setting an earlier modification time changes
// it here. File numbers of APFS are never used again.
func statOf(st *unix.Stat_t) stat {
	at := func(t unix.Timespec) moment { return moment{t.Sec, uint32(t.Nsec)} } //nolint:gosec // below 1e9
	mode := uint32(st.Mode)
	return stat{
		id:    ident{dev: uint64(uint32(st.Dev)), ino: st.Ino}, //nolint:gosec // any number will do
		kind:  modeTypes[mode&bitsFormat],
		mode:  mode & bitsAll,
		links: uint32(st.Nlink), uid: st.Uid, gid: st.Gid,
		size: uint64(max(0, st.Size)), used: uint64(max(0, st.Blocks)) << 9,
		rdev:  [2]uint32{unix.Major(uint64(uint32(st.Rdev))), unix.Minor(uint64(uint32(st.Rdev)))}, //nolint:gosec // as above
		atime: at(st.Atim), mtime: at(st.Mtim), ctime: at(st.Ctim),
	}
}

// open opens the file for reading or writing.
func (p place) open(flags int) (int, error) {
	name := p.name
	if name == "" {
		name = "."
	}
	return again1(func() (int, error) {
		return unix.Openat(p.fd, name, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	})
}

// entries lists a folder, in no order and without "." and "..", until f is false.
func (p place) entries(f func(entry) bool) error {
	fd, err := p.open(unix.O_RDONLY | unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(fd), "folder")
	defer dir.Close() //nolint:errcheck // read only
	for {
		list, err := dir.ReadDir(512)
		for _, e := range list {
			if !f(entry{name: e.Name()}) {
				return nil
			}
		}
		if len(list) == 0 {
			if errno, ok := errors.AsType[unix.Errno](err); ok {
				return errno
			}
			return nil
		}
	}
}

// layered reports whether files change their time of birth, which is not used here.
func (p place) layered() bool { return false }

func (p place) readlink() (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := again1(func() (int, error) { return unix.Readlinkat(p.fd, p.name, buf) })
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

func (p place) chmod(mode uint32) error {
	if p.name == "" {
		return again(func() error { return unix.Fchmod(p.fd, mode) })
	}
	return again(func() error { return unix.Fchmodat(p.fd, p.name, mode, unix.AT_SYMLINK_NOFOLLOW) })
}

func (p place) chown(uid, gid int) error {
	if p.name == "" {
		return again(func() error { return unix.Fchown(p.fd, uid, gid) })
	}
	return again(func() error { return unix.Fchownat(p.fd, p.name, uid, gid, unix.AT_SYMLINK_NOFOLLOW) })
}

// utimes sets access and modification time.
func (p place) utimes(ts [2]unix.Timespec) error {
	if p.name == "" {
		tv := []unix.Timeval{unix.NsecToTimeval(ts[0].Nano()), unix.NsecToTimeval(ts[1].Nano())}
		return again(func() error { return unix.Futimes(p.fd, tv) })
	}
	return again(func() error { return unix.UtimesNanoAt(p.fd, p.name, ts[:], unix.AT_SYMLINK_NOFOLLOW) })
}

// link gives the file a name in another folder.
func (p place) link(to place, name string) error {
	if p.name == "" {
		return unix.ENOENT // it has lost its last one
	}
	return again(func() error { return unix.Linkat(p.fd, p.name, to.fd, name, 0) })
}

// with opens the file for a call that takes a descriptor.
func (p place) with(call func(fd int) error) error {
	if p.name == "" {
		return again(func() error { return call(p.fd) })
	}
	fd, err := p.open(unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // read only
	return again(func() error { return call(fd) })
}

func (p place) getxattr(attr string, buf []byte) (n int, err error) {
	err = p.with(func(fd int) error {
		n, err = unix.Fgetxattr(fd, attr, buf)
		return err
	})
	return n, err
}

// getxattrChild is getxattr for a name in this folder, not followed if it is a link.
func (p place) getxattrChild(name, attr string, buf []byte) (int, error) {
	return place{fd: p.fd, name: name}.getxattr(attr, buf)
}

func (p place) setxattr(attr string, value []byte) error {
	return p.with(func(fd int) error { return unix.Fsetxattr(fd, attr, value, 0) })
}

func (p place) removexattr(attr string) error {
	return p.with(func(fd int) error { return unix.Fremovexattr(fd, attr) })
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

// mknod is not possible: nothing here makes a FIFO or a socket relative to a folder.
func (p place) mknod(string, fileType, uint32) error { return unix.ENOTSUP }

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

// startSync does nothing: there is no way to begin without waiting.
func startSync(int) {}

// syncData puts a file's data on the disk, with what is needed to read it again.
func syncData(fd int) error { return again(func() error { return unix.Fsync(fd) }) }

// errNoXattr is what the host says of an attribute that a file has not.
const errNoXattr = unix.ENOATTR

// caseInsensitive says how names are compared.
const caseInsensitive = true
