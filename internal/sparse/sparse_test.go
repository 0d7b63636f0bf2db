package sparse

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestCopy copies a file of holes and two extents, and one that is empty.
func TestCopy(t *testing.T) {
	dir := t.TempDir()
	for name, write := range map[string]func(*os.File) error{
		"empty": func(*os.File) error { return nil },
		"hole":  func(f *os.File) error { return f.Truncate(8 << 20) },
		"extents": func(f *os.File) error {
			if _, err := f.WriteAt([]byte("first"), 1<<20); err != nil {
				return err
			}
			if _, err := f.WriteAt([]byte("last"), 5<<20); err != nil {
				return err
			}
			return f.Truncate(8 << 20)
		},
	} {
		in, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		out, err := os.Create(filepath.Join(dir, name+".copy"))
		if err != nil {
			t.Fatal(err)
		}
		if err := write(in); err != nil {
			t.Fatal(err)
		}
		if err := Copy(out, in); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		want, _ := os.ReadFile(in.Name())
		if got, err := os.ReadFile(out.Name()); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: other contents, %v", name, err)
		}
		if n := blocks(t, out); n > 4096 { // 2 MB in units of 512 bytes: large pages of some file systems
			t.Errorf("%s takes %d blocks", name, n)
		}
		_, _ = in.Close(), out.Close()
	}
}

func blocks(t *testing.T, f *os.File) int64 {
	t.Helper()
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return fi.Sys().(*syscall.Stat_t).Blocks
}
