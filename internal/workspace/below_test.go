package workspace

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/paths"
)

// A child works below the workspace of its parent, whatever that plants there.
func TestBelow(t *testing.T) {
	home := paths.Home(t.TempDir())
	s := New(home, slog.New(slog.DiscardHandler))
	if err := s.Ensure("inst-1", Spec{}); err != nil {
		t.Fatal(err)
	}
	user := filepath.Join(t.TempDir(), "ws")
	foreign := user + "-other"
	for _, dir := range []string{user + "/a/b", foreign + "/a"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	own := s.Dir("inst-1", Spec{})
	for _, root := range []string{user, own} {
		if err := os.MkdirAll(root+"/a/b", 0o755); err != nil {
			t.Fatal(err)
		}
		for link, to := range map[string]string{
			"etc": "/etc", "up": "..", "sibling": foreign, "a/out": "../../", "in": "a", "self": root,
		} {
			if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(root+"/file", nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, base := range []Spec{{Workspace: user}, {Of: "inst-1"}} {
		for below, want := range map[string]fault.Kind{
			"": "", "a": "", "a/b": "", "a/../a": "",
			"..": fault.Denied, "../ws-other": fault.Denied, "/etc": fault.Denied, "a/../../etc": fault.Denied,
			"etc": fault.Denied, "up": fault.Denied, "sibling/a": fault.Denied, "a/out": fault.Denied, "in": fault.Denied, "in/b": fault.Denied, "self": fault.Denied,
			"none": fault.NotFound, "file": fault.Invalid, "a\x00b": fault.Denied,
		} {
			spec := base
			spec.Below = below
			err := s.Check(spec)
			if (err == nil) != (want == "") || err != nil && fault.KindOf(err) != want {
				t.Errorf("%+v: %v, want %q", spec, err, want)
			}
			w, err := s.Open("inst-2", spec, Begins)
			if (err == nil) != (want == "") {
				t.Errorf("open %+v: %v, want %q", spec, err, want)
			}
			if err == nil {
				if got := w.Dir(); got != s.Dir("inst-2", spec) || !strings.HasPrefix(got, s.Dir("inst-2", base)) {
					t.Errorf("%+v is in %s", spec, got)
				}
				if err := w.Close(); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

// What was a folder when it was asked for may be a link when it is opened.
func TestBelowChanges(t *testing.T) {
	root, foreign := t.TempDir(), t.TempDir()
	s := New(paths.Home(t.TempDir()), slog.New(slog.DiscardHandler))
	spec := Spec{Workspace: root, Below: "a"}
	if err := os.Mkdir(root+"/a", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(spec); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(root + "/a"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(foreign, root+"/a"); err != nil {
		t.Fatal(err)
	}
	if w, err := s.Open("inst-2", spec, Begins); err == nil {
		_ = w.Close()
		t.Error("a link out of the workspace was opened")
	}
}
