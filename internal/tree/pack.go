package tree

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"os"
)

// maxLinks bounds the files with further names that are remembered; beyond it each
// name gets a copy.
const maxLinks = 64 << 10

// packer writes one stream.
type packer struct {
	tar   *tar.Writer
	note  noter
	opts  PackOptions
	every bool     // devices, pipes and attributes too
	dir   *os.File // that is being read, or nil
	buf   []byte
	began bool
	links map[inode]*linked
	full  bool // links were given up
}

// inode is a file, whatever its names.
type inode struct{ dev, ino uint64 }

// linked is a file of which more names may come.
type linked struct {
	name string // the first
	left uint64 // how many more there are
}

func newPacker(w io.Writer, note func(string)) *packer {
	return &packer{tar: tar.NewWriter(w), note: note, buf: make([]byte, bufferSize), links: map[inode]*linked{}}
}

// entry packs what is called base in dir, and all below it. What has gone meanwhile
// was not there.
func (p *packer) entry(dir *os.Root, base, name string, depth int) error {
	fi, err := dir.Lstat(base)
	switch {
	case isMissing(err):
		return nil
	case err != nil:
		return at(name, err)
	case len(name) > maxName || depth > maxDepth:
		return refuse("%.200q...: too deep", name)
	}
	h := p.header(fi, name)
	if p.every {
		if done, err := p.more(dir, base, h, fi); done || err != nil {
			return err
		}
	}
	switch m := fi.Mode(); {
	case m.IsDir():
		return p.folder(dir, base, h, fi, depth)
	case m.IsRegular():
		return p.file(dir, base, h, fi)
	case m&fs.ModeSymlink != 0:
		h.Typeflag = tar.TypeSymlink
		if h.Linkname, err = dir.Readlink(base); isMissing(err) {
			return nil
		} else if err != nil {
			return at(name, err)
		}
		return p.write(h)
	default:
		p.note.say("%q left out: it is %s", name, kindOf(m))
		return nil
	}
}

func (p *packer) header(fi fs.FileInfo, name string) *tar.Header {
	h := &tar.Header{Name: name, ModTime: fi.ModTime(), Mode: bits(fi.Mode()), Format: tar.FormatPAX}
	if st, ok := statOf(fi); ok && (!p.opts.Squash || int(st.Uid) != os.Getuid()) {
		h.Uid, h.Gid = int(st.Uid), int(st.Gid)
	}
	return h
}

// bits returns a mode as tar and the kernel write it.
func bits(m fs.FileMode) int64 {
	b := int64(m.Perm())
	for bit, flag := range specialBits {
		if m&flag != 0 {
			b |= bit
		}
	}
	return b
}

var specialBits = map[int64]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky}

func (p *packer) write(h *tar.Header) error {
	p.began = true
	if err := p.tar.WriteHeader(h); err != nil {
		return at(h.Name, err)
	}
	return nil
}

// folder packs a folder, a few names at a time.
func (p *packer) folder(parent *os.Root, base string, h *tar.Header, fi fs.FileInfo, depth int) error {
	name := h.Name
	if depth > 0 && !p.opts.Layer && isPseudo(parent, base, fi) {
		p.note.say("%q left out: the kernel makes it up", name)
		return nil
	}
	dir, err := parent.OpenRoot(base)
	if isMissing(err) {
		return nil
	}
	if err != nil {
		return at(name, err)
	}
	defer func() { _ = dir.Close() }() // only read
	list, err := dir.Open(".")
	if err != nil {
		return at(name, err)
	}
	defer func() { _ = list.Close() }() // only read
	if now, err := list.Stat(); err != nil || !os.SameFile(fi, now) {
		return refuse("%q changed while it was read", name)
	}
	h.Typeflag, h.Name = tar.TypeDir, name+"/"
	if err := p.write(h); err != nil {
		return err
	}
	if p.opts.Layer && depth > 0 && isOpaque(list) {
		if err := p.write(&tar.Header{Typeflag: tar.TypeReg, Name: name + "/" + whiteout + whiteout + ".opq", Format: tar.FormatPAX}); err != nil {
			return err
		}
	}
	above := p.dir
	p.dir = list
	defer func() { p.dir = above }()
	for {
		names, err := list.Readdirnames(256)
		for _, n := range names {
			if err := p.entry(dir, n, name+"/"+n, depth+1); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return at(name, err)
		}
	}
}

// file packs a regular file, or a link to one that was packed before.
func (p *packer) file(dir *os.Root, base string, h *tar.Header, fi fs.FileInfo) error {
	if first, ok := p.linked(h.Name, fi); ok {
		h.Typeflag, h.Linkname = tar.TypeLink, first
		return p.write(h)
	}
	f, err := dir.OpenFile(base, os.O_RDONLY|nonblock, 0)
	if isMissing(err) {
		return nil
	}
	if err != nil {
		return at(h.Name, err)
	}
	defer func() { _ = f.Close() }() // only read
	now, err := f.Stat()
	if err != nil {
		return at(h.Name, err)
	}
	if !os.SameFile(fi, now) {
		return refuse("%q changed while it was read", h.Name)
	}
	h.Typeflag = tar.TypeReg
	return p.contents(f, h)
}

// contents packs an open file. What fits the buffer is read first, so that files
// whose size the kernel does not tell (in /proc and /sys) come whole.
func (p *packer) contents(f *os.File, h *tar.Header) error {
	n, err := io.ReadFull(f, p.buf)
	whole := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
	if err != nil && !whole {
		return at(h.Name, err)
	}
	h.Size = int64(n)
	if !whole {
		fi, err := f.Stat()
		if err != nil {
			return at(h.Name, err)
		}
		if h.Size = fi.Size(); h.Size < int64(n) {
			return refuse("%q changed while it was read, or its size is not known", h.Name)
		}
	}
	if err := p.write(h); err != nil {
		return err
	}
	for left := h.Size; ; n, err = f.Read(p.buf[:min(left, bufferSize)]) {
		if err != nil && !whole {
			if errors.Is(err, io.EOF) {
				return refuse("%q shrank while it was read", h.Name)
			}
			return at(h.Name, err)
		}
		if _, err := p.tar.Write(p.buf[:n]); err != nil {
			return at(h.Name, err)
		}
		if left -= int64(n); left == 0 {
			return nil // what was added meanwhile is left out
		}
	}
}

// linked returns the first name of a file that was packed under another.
func (p *packer) linked(name string, fi fs.FileInfo) (first string, ok bool) {
	st, ok := statOf(fi)
	if !ok || uint64(st.Nlink) < 2 { //nolint:unconvert // its type differs between systems
		return "", false
	}
	key := inode{uint64(st.Dev), st.Ino} //nolint:unconvert // as above
	if l := p.links[key]; l != nil {
		if l.left--; l.left == 0 {
			delete(p.links, key)
		}
		return l.name, true
	}
	if len(p.links) < maxLinks {
		p.links[key] = &linked{name: name, left: uint64(st.Nlink) - 1} //nolint:unconvert // as above
	} else if !p.full {
		p.full = true
		p.note.say("more than %d files with several names: the others become copies", maxLinks)
	}
	return "", false
}
