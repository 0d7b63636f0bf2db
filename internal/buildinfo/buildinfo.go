package buildinfo

import "runtime/debug"

// version is set by the linker in releases: -X .../internal/buildinfo.version=1.2.3.
var version string

// Version returns the release, or "dev-" and the revision the tree was built
// from, with "+" behind it when the tree had changes.
func Version() string {
	if version != "" {
		return version
	}
	bi, ok := debug.ReadBuildInfo()
	if !ok {
		return "dev"
	}
	v, dirty := "dev", ""
	for _, s := range bi.Settings {
		switch s.Key {
		case "vcs.revision":
			v = "dev-" + s.Value[:min(12, len(s.Value))]
		case "vcs.modified":
			if s.Value == "true" {
				dirty = "+"
			}
		}
	}
	return v + dirty
}
