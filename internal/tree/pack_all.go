package tree

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// PackOptions says how all of a tree is packed.
type PackOptions struct {
	// Squash gives files of this process's user to root.
	Squash bool
	// Layer is for the upper folder of an overlay: what hides a file there becomes a
	// whiteout, as layers of container images have them, and what the overlay notes for
	// itself is left out.
	Layer bool
	// Note is told, one line at a time, what was left out; nil is nobody.
	Note func(string)
}

// whiteout begins the name of a file that hides another (OCI image-spec, layer.md).
const whiteout = ".wh."

// PackAll is Pack with devices, pipes and extended attributes, as a root file system has
// them. Only sockets are left out.
func (s *Source) PackAll(w io.Writer, opts PackOptions) error {
	p := newPacker(w, opts.Note)
	p.opts, p.every = opts, true
	if err := p.entry(s.dir, s.base, s.name, 0); err != nil {
		return err
	}
	if !p.began {
		return fmt.Errorf("%q: %w", s.name, fs.ErrNotExist)
	}
	return p.tar.Close()
}

// xattrRecord is how tar carries extended attributes in PAX records.
const xattrRecord = "SCHILY.xattr."

// more adds the attributes of a file to its header, and packs what only PackAll packs.
func (p *packer) more(dir *os.Root, base string, h *tar.Header, fi fs.FileInfo) (done bool, err error) {
	st, ok := statOf(fi)
	if !ok {
		return false, nil
	}
	m := fi.Mode()
	if m&fs.ModeCharDevice != 0 && st.Rdev == 0 && p.opts.Layer {
		at := strings.LastIndexByte(h.Name, '/') + 1
		return true, p.write(&tar.Header{Typeflag: tar.TypeReg, Name: h.Name[:at] + whiteout + h.Name[at:], Format: tar.FormatPAX})
	}
	if !m.IsDir() && !m.IsRegular() {
		if first, ok := p.linked(h.Name, fi); ok {
			h.Typeflag, h.Linkname = tar.TypeLink, first
			return true, p.write(h)
		}
	}
	if err := p.attributes(dir, base, h); err != nil {
		return true, at(h.Name, err)
	}
	switch {
	case m&fs.ModeNamedPipe != 0:
		h.Typeflag = tar.TypeFifo
	case m&fs.ModeCharDevice != 0:
		h.Typeflag = tar.TypeChar
	case m&fs.ModeDevice != 0:
		h.Typeflag = tar.TypeBlock
	default:
		return false, nil
	}
	if m&fs.ModeDevice != 0 {
		h.Devmajor = int64(unix.Major(uint64(st.Rdev))) //nolint:unconvert // its type differs between systems
		h.Devminor = int64(unix.Minor(uint64(st.Rdev))) //nolint:unconvert // as above
	}
	return true, p.write(h)
}

// attributes reads the extended attributes of a file.
func (p *packer) attributes(dir *os.Root, base string, h *tar.Header) error {
	in := p.dir
	if in == nil {
		f, err := dir.Open(".")
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }() // only read
		in = f
	}
	all, err := xattrs(in, base, p.buf)
	if err != nil {
		return err
	}
	for name, value := range all {
		if strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") {
			continue
		}
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[xattrRecord+name] = value
	}
	return nil
}
