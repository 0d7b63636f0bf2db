package worker

import (
	"os"
	"path/filepath"
	"testing"
)

func TestVersion(t *testing.T) {
	dir := t.TempDir()
	for name, want := range map[string]string{
		"libkrun.so.1.18.0": "1.18.0", "libkrun.1.9.8.dylib": "1.9.8", "libkrun.so.1": "1", "libkrun.so": "", "other.so.3": "",
	} {
		if got := version(filepath.Join(dir, name)); got != want {
			t.Errorf("version of %s = %q, want %q", name, got, want)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "libkrun.so.1.17.4"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "libkrun.so.1")
	if err := os.Symlink("libkrun.so.1.17.4", link); err != nil {
		t.Fatal(err)
	}
	if got := version(link); got != "1.17.4" {
		t.Errorf("version of a link = %q", got)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"run", "more"}, {"probe"}, {"other"}} {
		if got := Main(args); got != usage {
			t.Errorf("Main(%q) = %d", args, got)
		}
	}
}
