package atomicfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Prefix begins the names of unfinished files and folders.
const Prefix = ".unfinished-"

// Write replaces the file at path with data, durably.
func Write(path string, data []byte, perm os.FileMode) error {
	return put(path, data, perm, os.Rename)
}

// Create makes the file at path with data, durably. Where there is one already it
// fails with fs.ErrExist, and that one stays as it is: of several who create the same
// file at a time, one does.
func Create(path string, data []byte, perm os.FileMode) error {
	return put(path, data, perm, os.Link)
}

// put writes data to an unfinished file, which name gives its final name.
func put(path string, data []byte, perm os.FileMode, name func(from, to string) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), Prefix+"*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone already when it was renamed
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(perm), f.Sync(), f.Close())
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := name(f.Name(), path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// Rename gives a finished file another name in the same folder, durably. What had
// that name is gone.
func Rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(to))
}

// SyncDir makes the names in a folder durable, as far as its file system can.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		err = nil
	}
	return errors.Join(err, d.Close())
}

// Sweep removes everything unfinished in dir. The caller knows that nobody is at
// work there.
func Sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), Prefix) {
			errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}
