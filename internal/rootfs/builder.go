package rootfs

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/size"
)

// xattrRecord is how tar carries extended attributes in PAX records.
const xattrRecord = "SCHILY.xattr."

// Builder writes one EROFS image. Add archives, layers and other images, each on top
// of what is there, then Finish. It is for one goroutine. After an error the file's
// content is worthless.
type Builder struct {
	f      *os.File
	w      *blockWriter
	tree   *tree
	next   uint32 // the block that is written next
	data   int64  // bytes of files so far
	layers bool   // members named .wh. are whiteouts
	limits Limits
}

// Limits bounds an image in the making: what it is made of comes from strangers.
type Limits struct {
	// Data bounds the bytes of all files, holes included: those are free for whoever
	// made them, and take time here.
	Data size.Bytes
	// Written bounds what the image takes on the disk.
	Written size.Bytes
	// Entries bounds the names in it, and Names the bytes of names, of links' targets and
	// of attributes: they are held in memory.
	Entries int
	Names   size.Bytes
}

// DefaultLimits are the limits of a Builder that was told no others.
func DefaultLimits() Limits {
	return Limits{Data: 64 * size.GiB, Written: 64 * size.GiB, Entries: 1 << 20, Names: 256 * size.MiB}
}

// NewBuilder starts an image at the beginning of f, which is empty.
func NewBuilder(f *os.File) (*Builder, error) { return NewBuilderWithin(f, DefaultLimits()) }

// NewBuilderWithin is NewBuilder with other limits.
func NewBuilderWithin(f *os.File, limits Limits) (*Builder, error) {
	b := &Builder{f: f, w: newBlockWriter(f, int64(limits.Written)), tree: newTree(limits), limits: limits}
	// Block 0 is the superblock's; Finish comes back for it.
	if _, err := b.w.Write(make([]byte, blockSize)); err != nil {
		return nil, err
	}
	b.next = 1
	return b, nil
}

// AddTar adds all members of an uncompressed tar stream. A member replaces what
// an earlier one of the same name left, but a directory keeps its content.
func (b *Builder) AddTar(ctx context.Context, r io.Reader) error {
	tr := tar.NewReader(ctxReader{ctx, r})
	b.tree.layer++
	for {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return b.blame(err)
		}
		if err := b.add(h, tr); err != nil {
			return fmt.Errorf("add %s: %w", h.Name, b.blame(err))
		}
	}
}

// blame says that what went wrong is the archive's fault, unless it is known whose it is
// or the image could not be written.
func (b *Builder) blame(err error) error {
	if fault.KindOf(err) != fault.Internal || b.w.err != nil {
		return err
	}
	return fault.Wrap(fault.Invalid, err, "bad archive").By(fault.Image)
}

func (b *Builder) add(h *tar.Header, r io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	elems, err := split(h.Name)
	if err != nil {
		return err
	}
	if len(elems) == 0 {
		return b.addRoot(h)
	}
	if hidden, ok := strings.CutPrefix(elems[len(elems)-1], whiteoutPrefix); ok && b.layers {
		return b.tree.whiteout(elems[:len(elems)-1], hidden)
	}
	dir, err := b.tree.dir(elems[:len(elems)-1])
	if err != nil {
		return err
	}
	name := elems[len(elems)-1]
	if h.Typeflag == tar.TypeLink {
		return b.addHardLink(dir, name, h.Linkname)
	}
	n, err := b.newNode(h)
	if err != nil {
		return err
	}
	if old := dir.children[name]; n.isDir() && old != nil && old.isDir() {
		old.setAttrs(n)
		old.layer = b.tree.layer
		return nil
	}
	if n.mode&typeMask == typeFile {
		if err := b.writeData(n, r); err != nil {
			return err
		}
	}
	return b.tree.put(dir, name, n)
}

func (b *Builder) addRoot(h *tar.Header) error {
	n, err := b.newNode(h)
	if err != nil {
		return err
	}
	if !n.isDir() {
		return badArchive("the root is not a directory")
	}
	b.tree.root.setAttrs(n)
	return nil
}

func (b *Builder) addHardLink(dir *node, name, target string) error {
	n, err := b.tree.find(target)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return badArchive("hard link to %q, which is not there", target)
	case err != nil:
		return err
	case n.isDir():
		return badArchive("hard link to the directory %q", target)
	case dir.children[name] == n:
		return nil
	}
	return b.tree.put(dir, name, n)
}

// setAttrs gives a directory the attributes of another.
func (n *node) setAttrs(from *node) {
	n.mode, n.uid, n.gid, n.mtime, n.xattrs = from.mode, from.uid, from.gid, from.mtime, from.xattrs
}

// newNode makes the node that h describes, without its data.
func (b *Builder) newNode(h *tar.Header) (*node, error) {
	if h.Uid < 0 || h.Gid < 0 || int64(h.Uid) > 1<<32-2 || int64(h.Gid) > 1<<32-2 {
		return nil, badArchive("owner %d:%d is not possible", h.Uid, h.Gid)
	}
	n := &node{
		mode: uint32(h.Mode & 0o7777), uid: uint32(h.Uid), gid: uint32(h.Gid), mtime: h.ModTime,
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeRegA, tar.TypeGNUSparse, tar.TypeCont: //nolint:staticcheck // old archives have TypeRegA
		n.mode |= typeFile
		n.size = uint64(max(h.Size, 0))
	case tar.TypeDir:
		n.mode |= typeDir
		n.children = map[string]*node{}
	case tar.TypeSymlink:
		if h.Linkname == "" || len(h.Linkname) > maxLinkTarget {
			return nil, badArchive("symbolic link with a target of %d bytes", len(h.Linkname))
		}
		n.mode |= typeLink | 0o777
		n.target, n.size = h.Linkname, uint64(len(h.Linkname))
	case tar.TypeChar:
		n.mode |= typeChar
		n.rdev = deviceNumber(h.Devmajor, h.Devminor)
	case tar.TypeBlock:
		n.mode |= typeBlock
		n.rdev = deviceNumber(h.Devmajor, h.Devminor)
	case tar.TypeFifo:
		n.mode |= typeFIFO
	default:
		return nil, badArchive("member of unknown type %q", h.Typeflag)
	}
	return n, n.setXattrs(h.PAXRecords)
}

func (n *node) setXattrs(records map[string]string) error {
	total := 0
	for k, v := range records {
		name, ok := strings.CutPrefix(k, xattrRecord)
		if !ok {
			continue
		}
		if index, suffix := xattrName(name); index == 0 || len(suffix) > maxName {
			continue // a class that the file system cannot hold, such as system.*
		}
		if n.xattrs == nil {
			n.xattrs = map[string]string{}
		}
		n.xattrs[name] = v
		total += len(name) + len(v)
	}
	if total > maxXattrs {
		return badArchive("%d bytes of extended attributes", total)
	}
	return nil
}

// deviceNumber encodes a device as the kernel's new_encode_dev does.
func deviceNumber(major, minor int64) uint32 {
	return uint32(minor&0xff | major&0xfff<<8 | minor&0xfff00<<12) //nolint:gosec // masked to 32 bits
}

// writeData appends a file's data to the image, filled up to a whole block.
func (b *Builder) writeData(n *node, r io.Reader) error {
	size := int64(n.size) //nolint:gosec // came from an int64
	if size == 0 {
		return nil
	}
	blocks := (n.size + blockSize - 1) / blockSize
	if uint64(b.next)+blocks > maxBlocks {
		return badArchive("larger than a file system can be")
	}
	if b.data += size; b.data > int64(b.limits.Data) {
		return badArchive("more than %v in its files", b.limits.Data)
	}
	n.block = b.next
	copied, err := b.w.ReadFrom(r)
	if err != nil {
		return err
	}
	if copied != size {
		return badArchive("%d bytes of data instead of %d", copied, size)
	}
	if err := b.pad(size); err != nil {
		return err
	}
	b.next += uint32(blocks) //nolint:gosec // bounded by maxBlocks
	return nil
}

// pad writes zeros after size bytes up to the end of their last block.
func (b *Builder) pad(size int64) error {
	if rest := size % blockSize; rest != 0 {
		_, err := b.w.Write(make([]byte, blockSize-rest))
		return err
	}
	return nil
}
