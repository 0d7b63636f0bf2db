package presence

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestWatchFile(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(path string) error
		gone bool
	}{
		"removed":             {os.Remove, true},
		"moved away":          {func(path string) error { return os.Rename(path, path+".old") }, true},
		"removed with folder": {func(path string) error { return os.RemoveAll(filepath.Dir(path)) }, true},
		"replaced": {func(path string) error {
			return errors.Join(os.WriteFile(path+".new", nil, 0o600), os.Rename(path+".new", path))
		}, true},
		"removed and made again": {func(path string) error { return errors.Join(os.Remove(path), os.WriteFile(path, nil, 0o600)) }, true},
		"others": {func(path string) error {
			return errors.Join(os.WriteFile(path, []byte("x"), 0o600), os.Chmod(path, 0o400), os.WriteFile(path+".x", nil, 0o600), os.Remove(path+".x"))
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "home")
			path := filepath.Join(dir, "lock")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			f, err := os.Create(path) // held open, as a lock is
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = f.Close() }()
			w, err := WatchFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.do(path); err != nil {
				t.Fatal(err)
			}
			if c.gone {
				select {
				case <-w.Gone():
				case <-time.After(10 * time.Second):
					t.Error("it is not noticed")
				}
			}
			if err := w.Stop(); err != nil {
				t.Error(err)
			}
			select {
			case <-w.Gone():
				if !c.gone {
					t.Error("it is there, and counts as gone")
				}
			default:
			}
		})
	}
	if _, err := WatchFile(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("what does not exist is watched")
	}
}
