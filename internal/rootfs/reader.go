package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"time"

	"github.com/erofs/go-erofs"
)

// AddImage adds all that another image has, which this package has written. The image
// is a file of this host, yet its content came from strangers: the limits hold.
func (b *Builder) AddImage(ctx context.Context, f *os.File) error {
	img, err := erofs.Open(f)
	if err != nil {
		return fmt.Errorf("read %s: %w", f.Name(), err)
	}
	b.tree.layer++
	c := &copier{Builder: b, img: img, inodes: map[int64]*node{}}
	st, err := c.stat(".")
	if err == nil {
		b.tree.root.setAttrs(c.node(st))
		err = c.dir(ctx, ".", b.tree.root)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", f.Name(), err)
	}
	return nil
}

// copier copies the tree of an image.
type copier struct {
	*Builder

	img    fs.FS
	inodes map[int64]*node // those that have several names
}

func (c *copier) stat(name string) (*erofs.Stat, error) {
	fi, err := fs.Lstat(c.img, name)
	if err != nil {
		return nil, err
	}
	st, ok := fi.Sys().(*erofs.Stat)
	if !ok {
		return nil, fmt.Errorf("%s: attributes of an unknown kind, %T", name, fi.Sys())
	}
	return st, nil
}

// node returns a new node with the attributes of st.
func (c *copier) node(st *erofs.Stat) *node {
	return &node{
		mode: unixMode(st.Mode), uid: st.UID, gid: st.GID, rdev: st.Rdev,
		mtime:  time.Unix(int64(st.Mtime), int64(st.MtimeNs)), //nolint:gosec // as it was written
		xattrs: st.Xattrs,
	}
}

func (c *copier) dir(ctx context.Context, name string, to *node) error {
	entries, err := fs.ReadDir(c.img, name)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if _, err := split(e.Name()); err != nil {
			return err
		}
		if err := c.entry(ctx, path.Join(name, e.Name()), e.Name(), to); err != nil {
			return err
		}
	}
	return nil
}

func (c *copier) entry(ctx context.Context, full, name string, to *node) error {
	st, err := c.stat(full)
	if err != nil {
		return err
	}
	n := c.inodes[st.Ino]
	if n == nil {
		if n, err = c.read(full, st); err != nil {
			return err
		}
		if st.Nlink > 1 && !n.isDir() {
			c.inodes[st.Ino] = n
		}
	}
	if err := c.tree.put(to, name, n); err != nil {
		return err
	}
	if n.isDir() {
		return c.dir(ctx, full, n)
	}
	return nil
}

// read returns the node at a path, with its data.
func (c *copier) read(full string, st *erofs.Stat) (*node, error) {
	n := c.node(st)
	switch n.mode & typeMask {
	case typeDir:
		n.children = map[string]*node{}
	case typeLink:
		var err error
		if n.target, err = fs.ReadLink(c.img, full); err != nil {
			return nil, err
		}
		n.size = uint64(len(n.target))
	case typeFile:
		n.size = uint64(max(st.Size, 0))
		f, err := c.img.Open(full)
		if err != nil {
			return nil, err
		}
		err = c.writeData(n, io.LimitReader(f, st.Size))
		return n, errors.Join(err, f.Close())
	}
	return n, nil
}

// unixMode returns a mode as the kernel writes it.
func unixMode(m fs.FileMode) uint32 {
	mode := uint32(m.Perm())
	for flag, bits := range map[fs.FileMode]uint32{
		fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000,
	} {
		if m&flag != 0 {
			mode |= bits
		}
	}
	switch m.Type() { //nolint:exhaustive // types are these, one by one
	case fs.ModeDir:
		return mode | typeDir
	case fs.ModeSymlink:
		return mode | typeLink
	case fs.ModeNamedPipe:
		return mode | typeFIFO
	case fs.ModeSocket:
		return mode | typeSocket
	case fs.ModeDevice:
		return mode | typeBlock
	case fs.ModeDevice | fs.ModeCharDevice:
		return mode | typeChar
	}
	return mode | typeFile
}
