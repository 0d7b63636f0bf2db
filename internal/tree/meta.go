package tree

import (
	"archive/tar"
	"errors"
	"io/fs"
	"math"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// errNotOwner says that an owner could not be kept, which is no failure.
var errNotOwner = errors.New("the owner was not kept")

// own gives an open file or folder its owner and its mode, in this order: a change
// of the owner takes bits away.
func (u *unpacker) own(f *os.File, h *tar.Header) error {
	kept := false
	if u.opts.Owners {
		err := u.chown(h, f.Chown)
		if err != nil && !errors.Is(err, errNotOwner) {
			return err
		}
		kept = err == nil
	}
	mode := fs.FileMode(h.Mode & 0o777)
	for bit, flag := range specialBits {
		if h.Mode&bit != 0 && (flag == fs.ModeSticky || kept || u.opts.Setuid) {
			mode |= flag
		}
	}
	if err := f.Chmod(mode); err != nil {
		return at(h.Name, err)
	}
	return nil
}

func (u *unpacker) chown(h *tar.Header, do func(uid, gid int) error) error {
	if h.Uid < 0 || h.Gid < 0 || int64(h.Uid) >= math.MaxUint32 || int64(h.Gid) >= math.MaxUint32 {
		return refuse("%q belongs to %d:%d", h.Name, h.Uid, h.Gid)
	}
	err := do(h.Uid, h.Gid)
	switch {
	case errors.Is(err, syscall.EPERM):
		if !u.noOwner {
			u.noOwner = true
			u.note.say("owners are not kept: only root may give files away")
		}
		return errNotOwner
	case err != nil:
		return at(h.Name, err)
	}
	return nil
}

// timeOf returns an entry's modification time, if it is one that file systems know.
func timeOf(h *tar.Header) (time.Time, bool) {
	y := h.ModTime.Year()
	return h.ModTime, y > 1900 && y < 2200
}

func setTime(dir *os.Root, name string, h *tar.Header) error {
	t, ok := timeOf(h)
	if !ok {
		return nil
	}
	if err := dir.Chtimes(name, time.Time{}, t); err != nil {
		return at(h.Name, err)
	}
	return nil
}

// fits refuses a file that is larger than what is free: the disk it would fill is
// not the stream's.
func fits(f *os.File, h *tar.Header) error {
	const small = 1 << 20
	if h.Size < small {
		return nil
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return nil //nolint:nilerr // writing tells
	}
	if blocks := uint64(h.Size) / uint64(st.Bsize); blocks > st.Bavail { //nolint:gosec // never negative
		return at(h.Name, syscall.ENOSPC)
	}
	return nil
}
