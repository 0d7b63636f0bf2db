package guestapi

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
)

func viewWith(f instance.Folders) instance.View {
	var v instance.View
	v.ID, v.Spec.Folders = "inst-1", f
	return v
}

func TestChildFolders(t *testing.T) {
	named, deep := instance.Folders{Workspace: "proj"}, instance.Folders{Workspace: "/w", Below: "a", ReadOnly: true}
	for _, c := range []struct {
		of    instance.Folders
		asked string
		want  instance.Folders
		named string
		kind  fault.Kind
	}{
		{asked: ""},
		{asked: ".", want: instance.Folders{Of: "inst-1"}},
		{asked: "./", want: instance.Folders{Of: "inst-1"}},
		{asked: "/workspace", want: instance.Folders{Of: "inst-1"}},
		{asked: "/workspace/", want: instance.Folders{Of: "inst-1"}},
		{asked: "/workspace/a/../b", want: instance.Folders{Of: "inst-1", Below: "b"}},
		{asked: "a/b", want: instance.Folders{Of: "inst-1", Below: "a/b"}},
		{asked: "data", want: instance.Folders{Workspace: "data"}, named: "data"},
		{of: named, asked: "proj", want: named},
		{of: named, asked: "./proj", want: instance.Folders{Workspace: "proj", Below: "proj"}},
		{of: named, asked: "proj-other", want: instance.Folders{Workspace: "proj-other"}, named: "proj-other"},
		{of: instance.Folders{Workspace: "proj", Below: "a"}, asked: "proj", want: named, named: "proj"},
		{of: instance.Folders{Of: "inst-0", Below: "a"}, asked: "./b", want: instance.Folders{Of: "inst-0", Below: "a/b"}},
		{of: deep, asked: "./b", want: instance.Folders{Workspace: "/w", Below: "a/b", ReadOnly: true}},
		{of: deep, asked: "../b", kind: fault.Denied},
		{of: deep, asked: "/workspace/../b", kind: fault.Denied},
		{of: deep, asked: "b/../../c", kind: fault.Denied},
		{asked: "/", kind: fault.Denied},
		{asked: "//", kind: fault.Denied},
		{asked: "..", kind: fault.Denied},
		{asked: "/workspaces", kind: fault.Denied},
		{asked: "a\x00/b", kind: fault.Invalid},
	} {
		got, name, err := childFolders(viewWith(c.of), c.asked)
		if c.kind != "" {
			if fault.KindOf(err) != c.kind {
				t.Errorf("%q: %+v, %v; want %s", c.asked, got, err, c.kind)
			}
			continue
		}
		if err != nil || got.Workspace != c.want.Workspace || got.Of != c.want.Of || got.Below != c.want.Below || got.ReadOnly != c.want.ReadOnly || name != c.named {
			t.Errorf("%q of %+v: %+v, %q, %v; want %+v, %q", c.asked, c.of, got, name, err, c.want, c.named)
		}
	}
}

// FuzzChildFolders: whatever a guest asks for is its own folder, or below it, or a name.
func FuzzChildFolders(f *testing.F) {
	for _, s := range []string{"", ".", "..", "/", "/workspace", "/workspace/..", "a/../..", "./a", "name", "\x00", "/workspace//x", "a/./b/"} {
		f.Add(s, "base")
	}
	f.Fuzz(func(t *testing.T, asked, below string) {
		below = strings.Trim(filepath.Clean("/"+below), "/")
		got, named, err := childFolders(viewWith(instance.Folders{Workspace: "/w", Below: below}), asked)
		switch {
		case err != nil:
		case named != "":
			if got.Workspace != named || got.Below != "" || strings.Contains(named, "/") {
				t.Errorf("%q: %+v, %q", asked, got, named)
			}
		case asked == "":
		case got.Workspace != "/w", got.Below != below && below != "" && !strings.HasPrefix(got.Below, below+"/"),
			got.Below != "" && !filepath.IsLocal(got.Below):
			t.Errorf("%q below %q: %+v", asked, below, got)
		}
	})
}
