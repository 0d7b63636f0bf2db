package qemu

import (
	"fmt"
	"regexp"
	"strconv"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// Version is an upstream version of QEMU.
type Version struct{ Major, Minor, Micro int } // QMP's greeting has the same names

// oldest is the first version with "-netdev stream", which carries the network
// card, and the one that the measurements behind this driver were made with.
var oldest = Version{7, 2, 0}

var versionForm = regexp.MustCompile(`version (\d+)\.(\d+)(?:\.(\d+))?`)

// parseVersion finds the version in what "qemu --version" prints.
func parseVersion(out string) (Version, error) {
	m := versionForm.FindStringSubmatch(out)
	if m == nil {
		return Version{}, fault.New(fault.Unavailable, "no version in what QEMU prints: %.80q", out).By(fault.Host).
			WithHint("check the program, or name another with AEGIS_QEMU")
	}
	var v Version
	for i, p := range []*int{&v.Major, &v.Minor, &v.Micro} {
		if m[i+1] == "" {
			continue
		}
		n, err := strconv.Atoi(m[i+1])
		if err != nil {
			return Version{}, fmt.Errorf("version of QEMU: %w", err)
		}
		*p = n
	}
	return v, nil
}

// before tells whether v is older than w.
func (v Version) before(w Version) bool {
	if v.Major != w.Major {
		return v.Major < w.Major
	}
	if v.Minor != w.Minor {
		return v.Minor < w.Minor
	}
	return v.Micro < w.Micro
}

// String returns "7.2.22".
func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Micro) }
