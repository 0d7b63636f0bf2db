package rootfs

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"
)

// The names by which a layer of a container image takes away what those below it have
// (OCI image-spec, layer.md).
const (
	whiteoutPrefix = ".wh."
	// opaqueName, after the prefix, hides all that the layers below have in its
	// directory.
	opaqueName = ".wh..opq"
	// metaPrefix, after the prefix, begins names that aufs keeps for itself.
	metaPrefix = ".wh."
)

// AddLayer adds a layer of a container image: an archive like those of AddTar, in
// which whiteouts hide what the layers before it have, wherever in the archive they
// stand. Data of files that are hidden is given back to the disk in the end.
func (b *Builder) AddLayer(ctx context.Context, r io.Reader) error {
	b.layers = true
	defer func() { b.layers = false }()
	return b.AddTar(ctx, r)
}

// whiteout hides name in the directory at elems. What is not there is hidden already.
func (t *tree) whiteout(elems []string, name string) error {
	dir, err := t.walk(elems, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	switch {
	case name == opaqueName:
		return t.hideAll(dir)
	case name == "" || name == "." || name == ".." || strings.HasPrefix(name, metaPrefix):
		return nil
	}
	return t.hide(dir, name)
}

// hide takes away what layers below the present one have at name.
func (t *tree) hide(dir *node, name string) error {
	n := dir.children[name]
	switch {
	case n == nil:
		return nil
	case n.layer != t.layer:
		return t.remove(dir, name)
	case n.isDir(): // of this layer, but what is in it may be older
		return t.hideAll(n)
	}
	return nil
}

func (t *tree) hideAll(dir *node) error {
	for name := range dir.children {
		if err := t.hide(dir, name); err != nil {
			return err
		}
	}
	return nil
}

// reclaim gives the blocks of files that are not in the image any more back to the
// disk, where its file system can.
func (b *Builder) reclaim() {
	for _, n := range b.tree.orphans {
		if n.links > 0 {
			continue // it has got another name
		}
		blocks := (n.size + blockSize - 1) / blockSize
		punch(b.f, int64(n.block)*blockSize, int64(blocks)*blockSize) //nolint:gosec // bounded by maxBlocks
	}
}

// MakeDir makes a directory in the image, with those above it, unless something of
// that name is there.
func (b *Builder) MakeDir(path string) error {
	elems, err := split(path)
	if err != nil {
		return err
	}
	_, err = b.tree.dir(elems)
	return err
}

// ctxReader ends when its context does.
type ctxReader struct {
	ctx context.Context //nolint:containedctx // of one reading
	r   io.Reader
}

// Read implements io.Reader.
func (c ctxReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}
