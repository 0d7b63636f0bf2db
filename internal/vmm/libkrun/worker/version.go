package worker

import (
	"path/filepath"
	"regexp"
)

// fileVersion matches the version in the name of a library's file: libkrun.so.1.18.0,
// libkrun.1.18.0.dylib.
var fileVersion = regexp.MustCompile(`^libkrun\.(?:so\.)?([0-9]+(?:\.[0-9]+)*)(?:\.dylib)?$`)

// version returns the version of a library, as the name of its file tells it: libkrun
// has no function for it. Packages install the library under its whole version, and
// what programs load is a link.
func version(path string) string {
	if to, err := filepath.EvalSymlinks(path); err == nil {
		path = to
	}
	if m := fileVersion.FindStringSubmatch(filepath.Base(path)); m != nil {
		return m[1]
	}
	return ""
}
