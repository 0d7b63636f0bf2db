package daemon

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestRemoval removes what is its own, and not what has taken its place.
func TestRemoval(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pid")
	write := func() func() error {
		t.Helper()
		if err := os.WriteFile(path, []byte("1\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		remove, err := removal(path)
		if err != nil {
			t.Fatal(err)
		}
		return remove
	}
	there := func() bool {
		_, err := os.Lstat(path)
		return err == nil
	}
	if err := write()(); err != nil || there() {
		t.Errorf("%v, still there: %v", err, there())
	}
	old := write()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := old(); err != nil {
		t.Errorf("of what is gone: %v", err)
	}
	old = write()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	write() // perhaps with the same inode
	if err := os.Chtimes(path, time.Time{}, time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := old(); err != nil || !there() {
		t.Errorf("of another's: %v, still there: %v", err, there())
	}
}
