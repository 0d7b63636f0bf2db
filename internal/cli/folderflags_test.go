package cli

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/xfeldman/aegisvm/api"
)

func TestWorkspaceFlag(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]struct {
		source   string
		readOnly bool
	}{
		"code": {"code", false}, "code:ro": {"code", true}, "code:rw": {"code", false}, "my.code_2": {"my.code_2", false},
		".": {here, false}, ".:ro": {here, true}, "./": {here, false}, "..": {filepath.Dir(here), false},
		"./a/../b": {filepath.Join(here, "b"), false}, "a/b:ro": {filepath.Join(here, "a/b"), true},
		"/srv/x/": {"/srv/x", false}, "/a:b": {"/a:b", false}, "./x:ro/": {filepath.Join(here, "x:ro"), false},
	} {
		var o folderFlags
		if err := (workspaceFlag{&o}).Set(in); err != nil || o.workspace != want.source || o.readOnly != want.readOnly {
			t.Errorf("%q: %q, read-only %v, %v; want %v", in, o.workspace, o.readOnly, err, want)
		}
	}
	for _, in := range []string{"", ":ro"} {
		if err := (workspaceFlag{&folderFlags{}}).Set(in); err == nil {
			t.Errorf("%q is a workspace", in)
		}
	}
}

func TestMountFlag(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	var o folderFlags
	for _, in := range []string{"./data:/data", "cache:/root/.cache:ro", "/a:b:/c:rw", "/x:/y"} {
		if err := (mountFlag{&o}).Set(in); err != nil {
			t.Errorf("%q: %v", in, err)
		}
	}
	want := []api.Mount{
		{Source: filepath.Join(here, "data"), Target: "/data"},
		{Source: "cache", Target: "/root/.cache", ReadOnly: true},
		{Source: "/a:b", Target: "/c"},
		{Source: "/x", Target: "/y"},
	}
	if !reflect.DeepEqual(o.mounts, want) {
		t.Errorf("%+v, want %+v", o.mounts, want)
	}
	for _, in := range []string{"", "data", "data:ro", ":/data", "./data:", "./data:data", "./data:ro:ro"} {
		if err := (mountFlag{&folderFlags{}}).Set(in); err == nil {
			t.Errorf("%q can be mounted", in)
		}
	}
}
