package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/size"
)

// The file types of a Unix mode.
const (
	typeMask   = 0o170000
	typeSocket = 0o140000
	typeLink   = 0o120000
	typeFile   = 0o100000
	typeBlock  = 0o060000
	typeDir    = 0o040000
	typeChar   = 0o020000
	typeFIFO   = 0o010000
)

// Limits on a tree: an archive is input from a stranger.
const (
	maxName       = 255 // bytes, as in Linux
	maxPathDepth  = 1024
	maxLinkTarget = 4095 // bytes, as in Linux
	maxFollow     = 40   // symbolic links on one path, as in Linux
	maxXattrs     = 64 << 10
)

// node is one inode. Hard links are one node under several names.
type node struct {
	mode     uint32 // Unix mode with type
	uid, gid uint32
	mtime    time.Time
	links    uint32
	layer    uint32 // that named it last
	size     uint64
	target   string            // of a symbolic link
	rdev     uint32            // of a device, as the kernel encodes it
	xattrs   map[string]string // full names
	children map[string]*node  // of a directory
	parent   *node             // of a directory; the root's is itself

	block uint32 // first block of the data, if any
	place placement
}

func (n *node) isDir() bool { return n.mode&typeMask == typeDir }

// tree is the name space of an image in the making.
type tree struct {
	root    *node
	limits  Limits
	nodes   int        // names in the tree
	names   size.Bytes // of all that were put into it
	layer   uint32     // that is being added
	orphans []*node    // files that have lost their last name; some may have got another
}

func newTree(limits Limits) *tree {
	root := &node{mode: typeDir | 0o755, links: 2, children: map[string]*node{}, mtime: time.Unix(0, 0)}
	root.parent = root
	return &tree{root: root, limits: limits, nodes: 1}
}

// split cleans the name of an archive member into its elements. Names are
// relative to the root however they are written; one that climbs above it is an
// error rather than a surprise.
func split(name string) ([]string, error) {
	var elems []string
	for e := range strings.SplitSeq(name, "/") {
		switch {
		case e == "" || e == ".":
		case e == "..":
			return nil, badArchive("the name %q climbs with \"..\"", name)
		case len(e) > maxName:
			return nil, badArchive("a name of %d bytes is too long", len(e))
		case strings.IndexByte(e, 0) >= 0:
			return nil, badArchive("a name contains a NUL byte")
		default:
			elems = append(elems, e)
		}
	}
	if len(elems) > maxPathDepth {
		return nil, badArchive("a path of %d elements is too deep", len(elems))
	}
	return elems, nil
}

// dir returns the directory at elems, following symbolic links within the tree
// as a process with this root would. Missing directories are made.
func (t *tree) dir(elems []string) (*node, error) { return t.walk(elems, true) }

// walk is dir, which makes missing directories or fails with fs.ErrNotExist.
func (t *tree) walk(elems []string, mend bool) (*node, error) {
	cur, follows := t.root, 0
	for len(elems) > 0 {
		e := elems[0]
		elems = elems[1:]
		if e == ".." {
			cur = cur.parent
			continue
		}
		child := cur.children[e]
		switch {
		case child == nil && !mend:
			return nil, fmt.Errorf("%s: %w", e, fs.ErrNotExist)
		case child == nil:
			child = &node{mode: typeDir | 0o755, mtime: cur.mtime, children: map[string]*node{}}
			if err := t.put(cur, e, child); err != nil {
				return nil, err
			}
			cur = child
		case child.isDir():
			cur = child
		case child.mode&typeMask == typeLink:
			if follows++; follows > maxFollow {
				return nil, badArchive("too many symbolic links at %q", e)
			}
			if strings.HasPrefix(child.target, "/") {
				cur = t.root
			}
			elems = append(targetElems(child.target), elems...)
		default:
			return nil, badArchive("%q is a file where a directory is needed", e)
		}
	}
	return cur, nil
}

// targetElems splits the target of a symbolic link; ".." stays.
func targetElems(target string) []string {
	return slices.DeleteFunc(strings.Split(target, "/"), func(e string) bool { return e == "" || e == "." })
}

// put binds name in dir to n, replacing what was there.
func (t *tree) put(dir *node, name string, n *node) error {
	if err := t.remove(dir, name); err != nil {
		return err
	}
	if t.nodes++; t.nodes > t.limits.Entries {
		return badArchive("more than %d entries", t.limits.Entries)
	}
	if t.names += size.Bytes(n.weigh(name)); t.names > t.limits.Names {
		return badArchive("more than %v of names and attributes", t.limits.Names)
	}
	n.layer = t.layer
	dir.children[name] = n
	if n.isDir() {
		n.parent, n.links = dir, 2
		dir.links++
	} else {
		n.links++
	}
	return nil
}

// remove unbinds name in dir, with all below it.
func (t *tree) remove(dir *node, name string) error {
	old := dir.children[name]
	if old == nil {
		return nil
	}
	if old == dir {
		return errors.New("a directory cannot remove itself")
	}
	delete(dir.children, name)
	if old.isDir() {
		dir.links--
		t.forget(old)
	} else {
		t.unlink(old)
	}
	t.nodes--
	return nil
}

// unlink takes one of a file's names away.
func (t *tree) unlink(n *node) {
	if n.links--; n.links == 0 && n.block > 0 {
		t.orphans = append(t.orphans, n)
	}
}

// weigh returns what a name of the node holds in memory, beyond the node itself.
func (n *node) weigh(name string) int {
	total := len(name) + len(n.target)
	for k, v := range n.xattrs {
		total += len(k) + len(v)
	}
	return total
}

// forget takes the names below a removed directory off the books.
func (t *tree) forget(dir *node) {
	for name, n := range dir.children {
		if n.isDir() {
			t.forget(n)
		} else {
			t.unlink(n)
		}
		delete(dir.children, name)
		t.nodes--
	}
}

// find returns the node of that name without following a link in its last
// element, or an error that wraps fs.ErrNotExist.
func (t *tree) find(name string) (*node, error) {
	elems, err := split(name)
	if err != nil {
		return nil, err
	}
	if len(elems) == 0 {
		return t.root, nil
	}
	dir, err := t.walk(elems[:len(elems)-1], false)
	if err != nil {
		return nil, err
	}
	if n := dir.children[elems[len(elems)-1]]; n != nil {
		return n, nil
	}
	return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
}

func badArchive(format string, args ...any) error {
	return fault.New(fault.Invalid, "bad archive: "+format, args...).By(fault.Image)
}
