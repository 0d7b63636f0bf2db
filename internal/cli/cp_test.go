package cli

import (
	"testing"

	"github.com/xfeldman/aegisvm/internal/fault"
)

func TestParsePlace(t *testing.T) {
	for in, want := range map[string]place{
		"file":            {path: "file"},
		"./box:/file":     {path: "./box:/file"},
		"/tmp/a:b":        {path: "/tmp/a:b"},
		"../a:b":          {path: "../a:b"},
		"-":               {path: "-"},
		"-x:/y":           {path: "-x:/y"},
		"dir/":            {path: "dir/"},
		"box:/tmp":        {"box", "/tmp"},
		"box:/tmp/":       {"box", "/tmp/"},
		"box:/tmp/.":      {"box", "/tmp/."},
		"box:tmp":         {"box", "/tmp"},
		"box:.":           {"box", "/."},
		"my.box-1_x:/a:b": {"my.box-1_x", "/a:b"},
	} {
		if got, err := parsePlace(in); err != nil || got != want {
			t.Errorf("parsePlace(%q) = %+v, %v; want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "box:"} {
		if _, err := parsePlace(in); fault.KindOf(err) != fault.Invalid {
			t.Errorf("parsePlace(%q): %v", in, err)
		}
	}
}
