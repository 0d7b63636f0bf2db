package tree

import (
	"archive/tar"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// Options say how a stream is unpacked.
type Options struct {
	// Owners gives files the numeric owners they had. Without it, and where this
	// process may not, they belong to whoever unpacks.
	Owners bool
	// Setuid keeps set-user-ID and set-group-ID bits also where the owner was not
	// kept.
	Setuid bool
	// Note is told what was left out, one line at a time; nil is nobody.
	Note func(string)
}

// unpacker unpacks one stream.
type unpacker struct {
	target  *Target
	opts    Options
	note    noter
	buf     []byte
	root    []string // of the stream: its name, nil for "." and for none
	land    []string // what it becomes
	began   bool
	noOwner bool // it was said that owners cannot be kept
	stack   []*level
}

// Unpack reads a stream to its end. It fails with what r fails with. What was unpacked
// before an error stays, whole files only.
func (t *Target) Unpack(r io.Reader, opts Options) error {
	u := &unpacker{target: t, opts: opts, note: opts.Note, buf: make([]byte, bufferSize)}
	u.stack = []*level{{root: t.dir}}
	defer u.drop()
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF { //nolint:errorlint // in the chain of another error it is no end
			break
		}
		if err == nil {
			err = u.entry(h, tr)
		}
		if err != nil {
			return badArchive(err)
		}
	}
	if !u.began && !t.extract {
		return refuse("the archive is empty")
	}
	if err := u.pop(1); err != nil {
		return err
	}
	return drain(r, u.buf)
}

func badArchive(err error) error {
	switch {
	case errors.Is(err, tar.ErrHeader):
		return refuse("this is not a tar archive, or a damaged one")
	case err == io.ErrUnexpectedEOF: //nolint:errorlint // archive/tar's own; a wrapped one is the stream's
		return refuse("the archive ends in the middle")
	}
	return err
}

// maxTrailer bounds what may follow the end of an archive; tar programs fill up a
// block.
const maxTrailer = 1 << 20

// drain reads the stream to its end: there an error of the other end is told.
func drain(r io.Reader, buf []byte) error {
	for left := maxTrailer; left > 0; {
		n, err := r.Read(buf)
		if err == io.EOF { // see Unpack
			return nil
		}
		if err != nil {
			return err
		}
		left -= n
	}
	return refuse("the archive does not end")
}

// entry unpacks one entry.
func (u *unpacker) entry(h *tar.Header, data io.Reader) error {
	switch h.Typeflag {
	case tar.TypeXGlobalHeader:
		return nil
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		u.note.say("%q left out: it is a device or a pipe", h.Name)
		return nil
	}
	path, err := u.place(h)
	if err != nil {
		return err
	}
	if len(path) == 0 { // the target folder itself
		if h.Typeflag != tar.TypeDir {
			return refuse("%q would replace the target", h.Name)
		}
		return nil
	}
	if h.Typeflag == tar.TypeDir {
		return u.folder(path, h)
	}
	dir, err := u.descend(path[:len(path)-1], h.Name)
	if err != nil {
		return err
	}
	base := path[len(path)-1]
	if err := replaceable(dir, base, h.Name); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeReg:
		return u.file(dir, base, h, data)
	case tar.TypeSymlink:
		return u.symlink(dir, base, h)
	case tar.TypeLink:
		return u.link(dir, base, path, h)
	}
	return refuse("%q is of type %q, which is not copied", h.Name, h.Typeflag)
}

// place returns where an entry goes, as the names below the target.
func (u *unpacker) place(h *tar.Header) ([]string, error) {
	parts, err := split(h.Name)
	if err != nil {
		return nil, err
	}
	if !u.began {
		u.began = true
		if !u.target.extract {
			if err := u.begin(parts, h); err != nil {
				return nil, err
			}
		}
	}
	return u.translate(parts, h.Name)
}

// begin takes the first entry as the root.
func (u *unpacker) begin(parts []string, h *tar.Header) (err error) {
	root := "."
	switch len(parts) {
	case 0:
	case 1:
		root, u.root = parts[0], parts
	default:
		return refuse("the archive begins with %q, which is not its root", h.Name)
	}
	u.land, err = u.target.land(root, h.Typeflag == tar.TypeDir)
	return err
}

// translate turns a path of the stream into one below the target.
func (u *unpacker) translate(parts []string, name string) ([]string, error) {
	if len(parts) < len(u.root) || !slices.Equal(parts[:len(u.root)], u.root) {
		return nil, refuse("%q is not below the archive's root", name)
	}
	return slices.Concat(u.land, parts[len(u.root):]), nil
}

// split returns the names in a path of a stream.
func split(name string) ([]string, error) {
	if name == "" || len(name) > maxName || strings.HasPrefix(name, "/") || strings.ContainsRune(name, 0) {
		return nil, refuse("the archive has the name %.200q", name)
	}
	var parts []string
	for part := range strings.SplitSeq(name, "/") {
		switch part {
		case "", ".":
		case "..":
			return nil, refuse("the archive has the name %.200q", name)
		default:
			parts = append(parts, part)
		}
	}
	if len(parts) > maxDepth {
		return nil, refuse("%.200q...: too deep", name)
	}
	return parts, nil
}

// replaceable refuses to put an entry where something else than a file or a symlink
// stands.
func replaceable(dir *os.Root, base, name string) error {
	fi, err := dir.Lstat(base)
	switch {
	case isMissing(err):
		return nil
	case err != nil:
		return at(name, err)
	case !fi.Mode().IsRegular() && fi.Mode()&fs.ModeSymlink == 0:
		return refuse("%q would replace %s", name, kindOf(fi.Mode()))
	}
	return nil
}

// temporary returns a name that nobody uses.
func temporary() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	return ".aegis-cp-" + hex.EncodeToString(b[:])
}

// settle gives what was made under a temporary name its final one.
func settle(dir *os.Root, tmp, base, name string) error {
	if err := dir.Rename(tmp, base); err != nil {
		_ = dir.Remove(tmp) // the first error tells more
		return at(name, err)
	}
	return nil
}

func (u *unpacker) file(dir *os.Root, base string, h *tar.Header, data io.Reader) error {
	tmp := temporary()
	f, err := dir.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return at(h.Name, err)
	}
	err = u.fill(f, h, data)
	if closeErr := f.Close(); err == nil && closeErr != nil {
		err = at(h.Name, closeErr)
	}
	if err == nil {
		err = setTime(dir, tmp, h)
	}
	if err != nil {
		_ = dir.Remove(tmp) // the first error tells more
		return err
	}
	return settle(dir, tmp, base, h.Name)
}

// fill writes a file's contents, owner and mode.
func (u *unpacker) fill(f *os.File, h *tar.Header, data io.Reader) error {
	if err := fits(f, h); err != nil {
		return err
	}
	for {
		n, err := data.Read(u.buf)
		if n > 0 {
			if _, err := f.Write(u.buf[:n]); err != nil {
				return at(h.Name, err)
			}
		}
		if err == io.EOF { // see Unpack
			return u.own(f, h)
		}
		if err != nil {
			return err
		}
	}
}

func (u *unpacker) symlink(dir *os.Root, base string, h *tar.Header) error {
	if h.Linkname == "" || strings.ContainsRune(h.Linkname, 0) {
		return refuse("%q is a symlink to %q", h.Name, h.Linkname)
	}
	tmp := temporary()
	if err := dir.Symlink(h.Linkname, tmp); err != nil {
		return at(h.Name, err)
	}
	if u.opts.Owners {
		if err := u.chown(h, func(uid, gid int) error { return dir.Lchown(tmp, uid, gid) }); err != nil && !errors.Is(err, errNotOwner) {
			_ = dir.Remove(tmp) // the first error tells more
			return err
		}
	}
	if t, ok := timeOf(h); ok {
		setLinkTime(dir, tmp, t)
	}
	return settle(dir, tmp, base, h.Name)
}

// link gives a file that was unpacked before another name. Links to folders and out
// of the target are refused by the kernel and by os.Root.
func (u *unpacker) link(dir *os.Root, base string, path []string, h *tar.Header) error {
	parts, err := split(h.Linkname)
	if err != nil {
		return err
	}
	first, err := u.translate(parts, h.Linkname)
	if err != nil {
		return err
	}
	if len(first) == 0 || slices.Equal(first, path) {
		return refuse("%q is a link to %q", h.Name, h.Linkname)
	}
	from, err := u.walk(first[:len(first)-1], h.Linkname)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }() // only read
	old := first[len(first)-1]
	if fi, err := from.Lstat(old); err != nil {
		return at(h.Linkname, err)
	} else if !fi.Mode().IsRegular() && fi.Mode()&fs.ModeSymlink == 0 {
		return refuse("%q is a link to %s", h.Name, kindOf(fi.Mode()))
	}
	tmp := temporary()
	if err := linkAt(from, old, dir, tmp); err != nil {
		return at(h.Name, err)
	}
	err = settle(dir, tmp, base, h.Name)
	_ = dir.Remove(tmp) // renaming one name of a file to another of it does nothing
	return err
}
