package workspace

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/nfs"
	"github.com/xfeldman/aegisvm/internal/sparse"
)

// maxDepth bounds the folders within folders that Copy follows a guest into.
const maxDepth = 4096

// Copy makes the automatic workspace of one instance that of another, which has none
// yet. Contents are shared where the file system can. What the guest sees is kept:
// owners, modes, times, symlinks, hard links, holes. Sockets are left out: nobody
// listens. The first one should not be written to meanwhile. After an error there is
// no copy.
func (s *Store) Copy(ctx context.Context, from, to string) error {
	src, err := s.own(from, automatic)
	if err != nil {
		return err
	}
	dst, err := s.own(to, automatic)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(path.Dir(dst), 0o700); err != nil {
		return storage(err, "make the workspace")
	}
	if err := os.Mkdir(dst, 0o700); err != nil { // fails if there is one
		return storage(err, "make the workspace")
	}
	if err := copyAll(ctx, src, dst); err != nil {
		if _, known := errors.AsType[*fault.Error](err); !known {
			err = storage(err, "copy files")
		}
		return errors.Join(fmt.Errorf("copy the workspace of %s: %w", from, err), os.RemoveAll(dst))
	}
	return nil
}

func copyAll(ctx context.Context, src, dst string) error {
	from, err := os.OpenRoot(src)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }() // only read
	to, err := os.OpenRoot(dst)
	if err != nil {
		return err
	}
	c := &copier{ctx: ctx, from: from, to: to, seen: map[inode]string{}}
	top, err := from.Lstat(".")
	if err == nil {
		err = c.folder(".", top, 0)
	}
	return errors.Join(err, to.Close())
}

// copier copies one tree. Paths are resolved anew below the two roots for each file:
// however deep it is, few descriptors are open.
type copier struct {
	ctx      context.Context //nolint:containedctx // of the one call of Copy
	from, to *os.Root
	seen     map[inode]string // files of which more names may come
}

type inode struct{ dev, ino uint64 }

// folder copies what is in a folder, whose copy exists, and then what it is itself.
func (c *copier) folder(name string, fi fs.FileInfo, depth int) error {
	if depth > maxDepth {
		return fault.New(fault.Invalid, "the workspace has over %d folders within folders", maxDepth)
	}
	list, err := c.from.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = list.Close() }() // only read
	for {
		some, err := list.ReadDir(256)
		for _, e := range some {
			if err := c.entry(path.Join(name, e.Name()), depth+1); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	to, err := c.to.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(c.likeness(to, list, fi), to.Close(), c.times(name, fi))
}

func (c *copier) entry(name string, depth int) error {
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	fi, err := c.from.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // gone by now
	}
	if err != nil {
		return err
	}
	switch {
	case fi.IsDir():
		if err := c.to.Mkdir(name, 0o700); err != nil {
			return err
		}
		return c.folder(name, fi, depth)
	case fi.Mode().IsRegular():
		return c.file(name, fi)
	case fi.Mode()&fs.ModeSymlink != 0:
		return c.symlink(name, fi)
	case fi.Mode()&fs.ModeNamedPipe != 0:
		return c.pipe(name, fi)
	}
	return nil
}

// file copies a regular file, or makes it another name of one that was copied.
func (c *copier) file(name string, fi fs.FileInfo) error {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if ok && st.Nlink > 1 {
		id := inode{uint64(st.Dev), st.Ino} //nolint:unconvert // its type differs between systems
		if first, again := c.seen[id]; again {
			return c.to.Link(first, name)
		}
		c.seen[id] = name
	}
	in, err := c.from.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // only read
	if now, err := in.Stat(); err != nil || !os.SameFile(now, fi) {
		return fault.New(fault.Conflict, "%q changed while it was copied", name)
	}
	out, err := c.to.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = sparse.Copy(out, in)
	if err == nil {
		err = c.likeness(out, in, fi)
	}
	return errors.Join(err, out.Close(), c.times(name, fi))
}

// likeness gives an open file or folder what is recorded of another one, its owner and
// its mode, in this order: a file that nobody may write to takes no record.
func (c *copier) likeness(to, from *os.File, fi fs.FileInfo) error {
	if err := nfs.CopyRecord(to, from); err != nil {
		return err
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
		if err := to.Chown(int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	return to.Chmod(fi.Mode().Perm() | fi.Mode()&fs.ModeSticky)
}

func (c *copier) times(name string, fi fs.FileInfo) error {
	return c.to.Chtimes(name, time.Time{}, fi.ModTime())
}

func (c *copier) symlink(name string, fi fs.FileInfo) error {
	target, err := c.from.Readlink(name)
	if err == nil {
		err = c.to.Symlink(target, name)
	}
	if err == nil {
		err = c.chown(name, fi)
	}
	return err
}

// pipe makes a named pipe. By its path: nobody else is at work below the copy.
func (c *copier) pipe(name string, fi fs.FileInfo) error {
	if err := unix.Mkfifo(filepath.Join(c.to.Name(), name), 0o600); err != nil {
		return &fs.PathError{Op: "mkfifo", Path: name, Err: err}
	}
	return errors.Join(c.to.Chmod(name, fi.Mode().Perm()), c.chown(name, fi))
}

func (c *copier) chown(name string, fi fs.FileInfo) error {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 {
		return nil
	}
	return c.to.Lchown(name, int(st.Uid), int(st.Gid))
}
