package kit

import (
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"syscall"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/atomicfile"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/paths"
)

// MaxConfig bounds a sidecar's file.
const MaxConfig = api.MaxKitConfig

// Config is the files that configure the sidecars of instances: one folder for each
// handle, 0700, files 0600. Its methods may be called together.
type Config struct{ home paths.Home }

// NewConfig returns the Config of a home. It does no I/O.
func NewConfig(home paths.Home) Config { return Config{home} }

// handleForm is that of handles; none is a path.
var handleForm = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]*$`)

// Dir returns the folder of a handle. It need not be there.
func (c Config) Dir(handle string) (string, error) {
	if !handleForm.MatchString(handle) {
		return "", fault.New(fault.Internal, "%q is no name of an instance", handle)
	}
	return filepath.Join(c.home.Kits(), handle), nil
}

// open opens the folder of a handle.
func (c Config) open(handle string, create bool) (*os.Root, error) {
	dir, err := c.Dir(handle)
	if err != nil {
		return nil, err
	}
	if create {
		if err := os.MkdirAll(c.home.Kits(), 0o700); err != nil {
			return nil, storage(err)
		}
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, storage(err)
		}
	}
	fi, err := os.Lstat(dir) // a link would lead elsewhere
	if err != nil {
		return nil, err
	}
	if !fi.IsDir() {
		return nil, fault.New(fault.Conflict, "%s is not a folder", dir).WithHint("move it away, or give the instance another name")
	}
	return os.OpenRoot(dir)
}

// Read returns a file; one that is not there is fault.NotFound.
func (c Config) Read(handle, name string) ([]byte, error) {
	if err := checkFile(name); err != nil {
		return nil, err
	}
	missing := fault.New(fault.NotFound, "%s has no file %q of its kit", handle, name)
	root, err := c.open(handle, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, missing
	}
	if err != nil {
		return nil, storage(err)
	}
	defer func() { _ = root.Close() }() // only read
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, missing
	}
	if err != nil {
		return nil, storage(err)
	}
	defer func() { _ = f.Close() }() // only read
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil, errors.Join(err, fault.New(fault.Invalid, "%q is not a file", name))
	}
	b, err := io.ReadAll(io.LimitReader(f, MaxConfig+1))
	if err == nil && len(b) > MaxConfig {
		return nil, fault.New(fault.TooLarge, "%q has more than %d bytes", name, MaxConfig)
	}
	return b, storage(err)
}

// Write replaces a file, or makes it. It is there whole or as it was.
func (c Config) Write(handle, name string, b []byte) error { return c.put(handle, name, b, true) }

// Begin writes a file, unless there is one.
func (c Config) Begin(handle, name string, b []byte) error { return c.put(handle, name, b, false) }

func (c Config) put(handle, name string, b []byte, replace bool) error {
	if err := checkFile(name); err != nil {
		return err
	}
	if len(b) > MaxConfig {
		return fault.New(fault.TooLarge, "at most %d bytes can be written", MaxConfig)
	}
	root, err := c.open(handle, true)
	if err != nil {
		return storage(err)
	}
	defer func() { _ = root.Close() }() // what was written has been closed
	if _, err := root.Lstat(name); err == nil && !replace {
		return nil
	}
	part := atomicfile.Prefix + rand.Text()
	f, err := root.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return storage(err)
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = root.Rename(part, name)
	}
	if err != nil {
		_ = root.Remove(part) // the first error tells more
	}
	return storage(err)
}

// Ensure makes the folder of a handle, and returns it.
func (c Config) Ensure(handle string) (string, error) {
	root, err := c.open(handle, true)
	if err != nil {
		return "", storage(err)
	}
	_ = root.Close() // nothing was written
	return c.Dir(handle)
}

// runForm is the handle of an instance that was given none.
var runForm = regexp.MustCompile(`^inst-[0-9a-z]+$`)

// Sweep removes the folders of instances without a name that are not there any more.
func (c Config) Sweep(there func(handle string) bool) error {
	entries, err := os.ReadDir(c.home.Kits())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, e := range entries {
		if e.IsDir() && runForm.MatchString(e.Name()) && !there(e.Name()) {
			errs = append(errs, c.Remove(e.Name()))
		}
	}
	return errors.Join(errs...)
}

// Remove removes the folder of a handle. It is idempotent, and leaves kits alone, whatever
// the handle is called.
func (c Config) Remove(handle string) error {
	dir, err := c.Dir(handle)
	if err != nil {
		return err
	}
	fi, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !fi.IsDir() {
		return nil
	}
	return storage(os.RemoveAll(dir))
}

func checkFile(name string) error {
	if !IsName(name) {
		return fault.New(fault.Denied, "%q is no name of a file", name).
			WithHint("a name has letters, digits, '.', '_' and '-', begins with a letter or digit, and is at most %d long", maxName)
	}
	return nil
}

// storage says whose fault an error of the host's file system is. nil stays nil.
func storage(err error) error {
	switch {
	case err == nil:
		return nil
	case fault.KindOf(err) != fault.Internal:
		return err
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fault.Wrap(fault.Exhausted, err, "the files of a kit").By(fault.Host).WithHint("free some space on the host's disk")
	case errors.Is(err, fs.ErrPermission):
		return fault.Wrap(fault.Denied, err, "the files of a kit").By(fault.Host)
	}
	return fault.Wrap(fault.Unavailable, err, "the files of a kit").By(fault.Host)
}
