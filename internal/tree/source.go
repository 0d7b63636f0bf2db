package tree

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Source is a file or folder that can be packed.
type Source struct {
	dir  *os.Root    // the folder it is in, or itself
	base string      // its name in there, or "."
	name string      // of the stream's root
	info fs.FileInfo // of the root
}

// OpenSource finds what path names. A symlink is itself, unless the path ends in a
// slash. A path that ends in "/." is the contents of a folder.
func OpenSource(path string) (*Source, error) {
	if path == "" {
		return nil, refuse("a path is empty")
	}
	clean := filepath.Clean(path)
	s := &Source{base: ".", name: filepath.Base(clean)}
	from := path
	if slashed(path) {
		if contents(path) {
			s.name = "."
		}
		if err := isFolder(path); err != nil {
			return nil, err
		}
	} else {
		from, s.base = filepath.Dir(clean), s.name
	}
	var err error
	if s.dir, err = os.OpenRoot(from); err != nil {
		return nil, at(path, err)
	}
	if s.info, err = s.dir.Lstat(s.base); err != nil {
		_ = s.dir.Close() // the first error tells more
		return nil, at(path, err)
	}
	if special(s.info.Mode()) {
		_ = s.dir.Close() // as above
		return nil, refuse("%q is %s: only files, folders and links are copied", path, kindOf(s.info.Mode()))
	}
	return s, nil
}

// IsDir reports whether the source is a folder.
func (s *Source) IsDir() bool { return s.info.IsDir() }

// Pack writes the stream. note is told, one line at a time, what was left out; nil is
// nobody. A file that changes while it is read is an error.
func (s *Source) Pack(w io.Writer, note func(string)) error {
	p := newPacker(w, note)
	if err := p.entry(s.dir, s.base, s.name, 0); err != nil {
		return err
	}
	if !p.began {
		return fmt.Errorf("%q: %w", s.name, fs.ErrNotExist)
	}
	return p.tar.Close()
}

// Close lets go of the source.
func (s *Source) Close() error { return s.dir.Close() }

func isFolder(path string) error {
	fi, err := os.Stat(path)
	switch {
	case err != nil:
		return at(path, err)
	case !fi.IsDir():
		return refuse("%q is not a folder", path)
	}
	return nil
}

// special reports whether a file is none that is copied.
func special(m fs.FileMode) bool {
	return m&(fs.ModeDevice|fs.ModeNamedPipe|fs.ModeSocket|fs.ModeIrregular) != 0
}

func kindOf(m fs.FileMode) string {
	switch {
	case m&fs.ModeDevice != 0:
		return "a device"
	case m&fs.ModeNamedPipe != 0:
		return "a pipe"
	case m&fs.ModeSocket != 0:
		return "a socket"
	case m.IsDir():
		return "a folder"
	case m&fs.ModeSymlink != 0:
		return "a symlink"
	case m.IsRegular():
		return "a file"
	}
	return "something else"
}
