package tree

import (
	"os"
	"path/filepath"
)

// Target is where a stream is unpacked.
type Target struct {
	dir     *os.Root // nothing outside of it is touched
	base    string   // what the stream's root becomes in there; "" where dir exists and takes it in
	file    bool     // base exists, and is a file
	slash   bool     // the path asked for a folder
	extract bool
	path    string // for messages
}

// OpenTarget finds where a stream lands whose root is to be copied to path:
//
//   - path is a folder: the root goes into it under its own name; the root "." is
//     poured into it, which leaves the folder's own mode and times alone.
//   - path is a file: a root that is a file takes its place.
//   - path does not exist, but the folder it is in does: the root becomes it. If path
//     ends in a slash the root must be a folder.
//
// Symlinks in path are followed: it is the caller's word, not the stream's.
func OpenTarget(path string) (*Target, error) {
	if path == "" {
		return nil, refuse("a path is empty")
	}
	t := &Target{path: path, slash: slashed(path)}
	fi, err := os.Stat(path)
	dir := path
	switch {
	case isMissing(err):
		if _, err := os.Lstat(filepath.Clean(path)); err == nil {
			return nil, refuse("%q is a symlink to nothing", path)
		}
		dir, t.base = filepath.Split(filepath.Clean(path))
	case err != nil:
		return nil, at(path, err)
	case fi.IsDir():
	case special(fi.Mode()):
		return nil, refuse("%q is %s", path, kindOf(fi.Mode()))
	case t.slash:
		return nil, refuse("%q is not a folder", path)
	default:
		real, err := filepath.EvalSymlinks(path)
		if err != nil {
			return nil, at(path, err)
		}
		t.file = true
		dir, t.base = filepath.Split(real)
	}
	return t.open(dir)
}

// OpenFolder returns a target that takes any tar stream into a folder that exists.
// Its entries need no common root.
func OpenFolder(path string) (*Target, error) {
	if path == "" {
		return nil, refuse("a path is empty")
	}
	if err := isFolder(path); err != nil {
		return nil, err
	}
	t := &Target{path: path, extract: true}
	return t.open(path)
}

func (t *Target) open(dir string) (*Target, error) {
	if dir == "" {
		dir = "."
	}
	var err error
	if t.dir, err = os.OpenRoot(dir); err != nil {
		return nil, at(dir, err)
	}
	return t, nil
}

// Close lets go of the target.
func (t *Target) Close() error { return t.dir.Close() }

// land decides what the stream's root becomes: the path of it in dir, nil for dir
// itself.
func (t *Target) land(root string, isDir bool) ([]string, error) {
	switch {
	case root == "." && !isDir:
		return nil, refuse("the archive's root is no folder, and has no name")
	case t.file && isDir:
		return nil, refuse("%q is a file, and the source a folder", t.path)
	case t.base == "" && root == ".":
		return nil, nil
	case t.base == "":
		return []string{root}, nil
	case t.slash && !isDir:
		return nil, refuse("the folder %q does not exist", t.path)
	}
	return []string{t.base}, nil
}
