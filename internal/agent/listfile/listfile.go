// Package listfile is a file of the workspace that holds a JSON list, which its user may
// read and edit too. Whoever reads it sees the list before a change or after it.
package listfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/xfeldman/aegisvm/internal/atomicfile"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/strictjson"
)

// File is such a list. It may be used from many goroutines.
type File[T any] struct {
	Path string
	Max  int // bytes that it may have

	mu sync.Mutex // over reading and replacing the file
}

// Load returns the list; none is an empty one.
func (f *File[T]) Load() ([]T, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.load()
}

// Update replaces the list by what change makes of it.
func (f *File[T]) Update(change func([]T) ([]T, error)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	list, err := f.load()
	if err != nil {
		return err
	}
	if list, err = change(list); err != nil {
		return err
	}
	data, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", f.Path, err)
	}
	if data = append(data, '\n'); len(data) > f.Max {
		return fault.New(fault.Exhausted, "the list would have %d bytes, at most %d; shorten or delete some", len(data), f.Max)
	}
	if err := os.MkdirAll(filepath.Dir(f.Path), 0o700); err != nil {
		return err
	}
	return atomicfile.Write(f.Path, data, 0o600)
}

func (f *File[T]) load() ([]T, error) {
	fi, err := os.Stat(f.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case !fi.Mode().IsRegular():
		return nil, fault.New(fault.Invalid, "%s is no file", f.Path)
	case fi.Size() > int64(f.Max):
		return nil, fault.New(fault.TooLarge, "%s is larger than %d bytes", f.Path, f.Max).WithHint("mend it, for example with bash")
	}
	data, err := os.ReadFile(f.Path)
	if err != nil {
		return nil, err
	}
	list, err := Decode[T](data)
	if err != nil {
		return nil, fault.New(fault.Invalid, "%s cannot be read: %v", f.Path, err).WithHint("mend or remove it: it is a JSON list")
	}
	return list, nil
}

// Decode reads a list as it stands in a file.
func Decode[T any](data []byte) ([]T, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, nil
	}
	var list []T
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, strictjson.Explain(data, err)
	}
	return list, nil
}
