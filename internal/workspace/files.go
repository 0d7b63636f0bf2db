package workspace

import (
	"cmp"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
)

const (
	// MaxFile is the most that Read returns and Write takes.
	MaxFile = api.MaxWorkspaceFile
	// MaxTree is how many entries Tree returns of one folder.
	MaxTree = 10_000
)

// Files is the host's way to the files of a workspace, whether a guest runs or not. A
// path is relative to the workspace; one that leads out of it, by ".." or by a link, is
// fault.Denied. Its methods may be called together.
type Files struct {
	dir      string
	below    string // Spec.Below
	root     *os.Root
	readOnly bool
}

// OpenFiles opens the workspace of an instance. It makes none that goes with the
// instance: that may be about to be deleted.
func (s *Store) OpenFiles(id string, spec Spec) (*Files, error) {
	var dir string
	var err error
	if spec.Workspace != "" {
		dir, err = s.source(spec.Workspace)
	} else {
		dir, err = s.own(cmp.Or(spec.Of, id), automatic)
	}
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err == nil && spec.Below != "" {
		root, err = descend(root, spec.Below)
	}
	if spec.Below != "" && err != nil {
		return nil, describe(err, spec.Below)
	}
	if spec.Workspace == "" && errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "%s has no workspace yet", id).WithHint("it is made when the instance starts")
	}
	if err != nil {
		return nil, storage(err, "open the workspace")
	}
	return &Files{dir: dir, below: spec.Below, root: root, readOnly: spec.ReadOnly}, nil
}

// descend opens a folder below root, without following links, and closes root.
func descend(root *os.Root, below string) (*os.Root, error) {
	defer func() { _ = root.Close() }() // only read
	if !filepath.IsLocal(below) {
		return nil, outside(below)
	}
	at := root
	for name := range strings.SplitSeq(path.Clean(below), "/") {
		// A link is no folder to Lstat. One that takes the folder's place behind that leads
		// nowhere but below at.
		fi, err := at.Lstat(name)
		if err == nil && fi.Mode()&fs.ModeSymlink != 0 {
			err = fault.New(fault.Denied, "%q goes through a link", below).WithHint("give the path that it leads to")
		}
		if err == nil && !fi.IsDir() {
			err = &fs.PathError{Op: "open", Path: below, Err: syscall.ENOTDIR}
		}
		next := (*os.Root)(nil)
		if err == nil {
			next, err = at.OpenRoot(name)
		}
		if at != root {
			_ = at.Close() // as above
		}
		if err != nil {
			return nil, err
		}
		at = next
	}
	return at, nil
}

// Close lets go of the folder.
func (f *Files) Close() error { return f.root.Close() }

// Dir is the folder on the host.
func (f *Files) Dir() string { return filepath.Join(f.dir, f.below) }

// local returns a user's path as one below the root.
func local(p string) (string, error) {
	clean := strings.TrimLeft(p, "/")
	if clean == "" {
		return ".", nil
	}
	if !filepath.IsLocal(clean) || strings.ContainsRune(clean, 0) {
		return "", outside(p)
	}
	return filepath.Clean(clean), nil
}

func outside(p string) error {
	return fault.New(fault.Denied, "%q is outside of the workspace", p).WithHint("give a path below the workspace's folder")
}

// describe turns what the host says of a path into what a person reads.
func describe(err error, p string) error {
	if _, said := errors.AsType[*fault.Error](err); said {
		return err
	}
	pathErr, _ := errors.AsType[*fs.PathError](err)
	switch {
	case err == nil:
		return nil
	case pathErr != nil && strings.Contains(pathErr.Err.Error(), "escapes"): // what os.Root says
		return outside(p)
	case errors.Is(err, fs.ErrNotExist):
		return fault.New(fault.NotFound, "there is no %q in the workspace", p)
	case errors.Is(err, syscall.ENOTDIR):
		return fault.New(fault.Invalid, "%q goes through something that is no folder", p)
	case errors.Is(err, syscall.EISDIR):
		return fault.New(fault.Invalid, "%q is a folder", p)
	case errors.Is(err, syscall.ENAMETOOLONG), errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.EINVAL):
		return fault.Wrap(fault.Invalid, err, "%q", p)
	}
	return storage(err, "the workspace")
}

// Tree lists the folder at p, sorted by name. Links are listed as they are.
func (f *Files) Tree(p string) ([]instance.Entry, error) {
	name, err := local(p)
	if err != nil {
		return nil, err
	}
	dir, err := f.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_DIRECTORY, 0)
	if errors.Is(err, syscall.ENOTDIR) {
		return nil, fault.New(fault.Invalid, "%q is not a folder", p)
	}
	if err != nil {
		return nil, describe(err, p)
	}
	defer func() { _ = dir.Close() }() // only read
	list, err := dir.ReadDir(MaxTree + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, describe(err, p)
	}
	if len(list) > MaxTree {
		return nil, fault.New(fault.TooLarge, "%q has more than %d entries", p, MaxTree)
	}
	out := make([]instance.Entry, 0, len(list))
	for _, e := range list {
		fi, err := e.Info()
		if err != nil {
			continue // gone by now
		}
		entry := instance.Entry{Name: e.Name(), IsDir: e.IsDir()}
		if !entry.IsDir {
			entry.Size = fi.Size()
		}
		out = append(out, entry)
	}
	slices.SortFunc(out, func(a, b instance.Entry) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// open opens a regular file. One that a guest has replaced by a pipe does not hold the
// caller up.
func (f *Files) open(p string, flags int, mode os.FileMode) (*os.File, fs.FileInfo, error) {
	name, err := local(p)
	if err != nil {
		return nil, nil, err
	}
	file, err := f.root.OpenFile(name, flags|syscall.O_NONBLOCK, mode)
	if errors.Is(err, syscall.ENXIO) {
		return nil, nil, fault.New(fault.Invalid, "%q is not a file", p)
	}
	if err != nil {
		return nil, nil, describe(err, p)
	}
	fi, err := file.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fault.New(fault.Invalid, "%q is not a file", p)
	}
	if err != nil {
		_ = file.Close() // nothing was written
		return nil, nil, err
	}
	return file, fi, nil
}

// Read returns the contents of the file at p, of at most MaxFile bytes.
func (f *Files) Read(p string) ([]byte, error) { return f.ReadAtMost(p, MaxFile) }

// ReadAtMost returns the contents of the file at p. One of more bytes is fault.TooLarge, and
// is not read.
func (f *Files) ReadAtMost(p string, limit int64) ([]byte, error) {
	file, fi, err := f.open(p, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // only read
	if fi.Size() > limit {
		return nil, fault.New(fault.TooLarge, "%q has %d bytes, at most %d can be read", p, fi.Size(), limit).WithHint("use: aegis cp")
	}
	return limited(file, p, limit)
}

// limited reads everything, if it is not too much.
func limited(r io.Reader, what string, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fault.New(fault.TooLarge, "%q is over %d bytes", what, limit).WithHint("use: aegis cp")
	}
	return b, nil
}

// writable refuses changes of a workspace that is read-only.
func (f *Files) writable() error {
	if f.readOnly {
		return fault.New(fault.Denied, "the workspace is read-only").WithHint("write to its folder: %s", f.dir)
	}
	return nil
}

// Write replaces the contents of the file at p, or makes it, and the folders it is in.
// Nothing is written before all of r was read. What the file was, owner and mode, it
// stays.
func (f *Files) Write(p string, r io.Reader) error {
	if err := f.writable(); err != nil {
		return err
	}
	name, err := local(p)
	if err != nil {
		return err
	}
	b, err := limited(r, p, MaxFile)
	if err != nil {
		return err
	}
	if err := f.makeAll(path.Dir(name), p); err != nil {
		return err
	}
	file, _, err := f.open(p, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	err = file.Truncate(0)
	if err == nil {
		_, err = file.Write(b)
	}
	if err == nil {
		err = f.adopt(name)
	}
	return describe(errors.Join(err, file.Close()), p)
}

// makeAll makes the folder dir, and those it is in.
func (f *Files) makeAll(dir, p string) error {
	if dir == "." {
		return nil
	}
	fi, err := f.root.Stat(dir)
	switch {
	case err == nil && fi.IsDir():
		return nil
	case err == nil:
		return describe(syscall.ENOTDIR, p)
	case !errors.Is(err, fs.ErrNotExist):
		return describe(err, p)
	}
	if err := f.makeAll(path.Dir(dir), p); err != nil {
		return err
	}
	if err := f.root.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return describe(err, p)
	}
	return describe(f.adopt(dir), p)
}

// adopt gives what a daemon that is root has made to the owner of the workspace: to the
// guest's root it is its own then.
func (f *Files) adopt(name string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	top, err := f.root.Stat(".")
	if err != nil {
		return err
	}
	fi, err := f.root.Lstat(name)
	if err != nil {
		return err
	}
	owner, ok := top.Sys().(*syscall.Stat_t)
	now, known := fi.Sys().(*syscall.Stat_t)
	if !ok || !known || now.Uid != 0 || owner.Uid == 0 {
		return nil
	}
	return f.root.Lchown(name, int(owner.Uid), int(owner.Gid))
}
