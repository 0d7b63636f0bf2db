package paths

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestFind looks beside this program before PATH, and takes nothing that cannot be run.
func TestFind(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	for name, mode := range map[string]os.FileMode{"tool": 0o700, "data": 0o600, filepath.Base(exe): 0o700} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	if p, err := Find("tool"); p != filepath.Join(dir, "tool") || err != nil {
		t.Errorf("%s, %v", p, err)
	}
	if p, err := Find(filepath.Base(exe)); filepath.Dir(p) == dir || err != nil {
		t.Errorf("%s, %v", p, err)
	}
	for _, name := range []string{"data", "nowhere-at-all"} {
		if p, err := Find(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %s, %v", name, p, err)
		}
	}
	t.Setenv("PATH", "."+string(filepath.ListSeparator)+dir) // never from where somebody happens to be
	t.Chdir(dir)
	if p, err := Find("tool"); err == nil && !filepath.IsAbs(p) {
		t.Errorf("found at %s", p)
	}
}

func TestKitDirs(t *testing.T) {
	dirs := Home("/home").KitDirs()
	if i := slices.Index(dirs, "/home/kits"); i != 1 {
		t.Errorf("the user's own come at %d of %q", i, dirs)
	}
}
