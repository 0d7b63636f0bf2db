package daemon

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xfeldman/aegisvm/internal/cron"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/paths"
	"github.com/xfeldman/aegisvm/internal/workspace"
)

// TestCronFile: what a guest plants in the place of its schedules leads nowhere, and does not
// cost more than the limit.
func TestCronFile(t *testing.T) {
	dir := t.TempDir()
	store := workspace.New(paths.Home(t.TempDir()), slog.New(slog.DiscardHandler))
	read := func() ([]byte, error) {
		return readCronFile(func() (instance.Files, error) { return store.OpenFiles("inst-1", workspace.Spec{Workspace: dir}) })
	}
	if b, err := read(); b != nil || err != nil {
		t.Errorf("none: %q, %v", b, err)
	}
	file := filepath.Join(dir, cron.File)
	if err := os.Mkdir(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(t.TempDir(), "secret")
	for name, c := range map[string]struct {
		plant func() error
		want  string
		kind  fault.Kind // "" is none; "any" is one that need not have a kind of its own
	}{
		"a file":      {func() error { return os.WriteFile(file, []byte("[]"), 0o600) }, "[]", ""},
		"a large one": {func() error { return os.WriteFile(file, []byte(strings.Repeat(" ", cron.MaxFile+1)), 0o600) }, "", fault.TooLarge},
		"a link out":  {func() error { return os.Symlink(secret, file) }, "", "any"},
		"a folder":    {func() error { return os.Mkdir(file, 0o700) }, "", "any"},
	} {
		if err := os.WriteFile(secret, []byte("[]"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := c.plant(); err != nil {
			t.Fatal(err)
		}
		b, err := read()
		if string(b) != c.want || (err != nil) != (c.kind != "") || c.kind != "" && c.kind != "any" && fault.KindOf(err) != c.kind {
			t.Errorf("%s: %q, %v", name, b, err)
		}
		if err := os.RemoveAll(file); err != nil {
			t.Fatal(err)
		}
	}
}
