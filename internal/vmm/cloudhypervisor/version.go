package cloudhypervisor

import (
	"fmt"
	"regexp"
	"strconv"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// Version is an upstream version.
type Version struct{ Major, Minor int }

// oldest is the first version that does not guess the format of disks, which a guest
// could fake, and that follows an overlay to what it lies on only when told to.
var oldest = Version{51, 0}

var versionForm = regexp.MustCompile(`v(\d{1,5})\.(\d{1,5})`)

// parseVersion finds the version in what "cloud-hypervisor --version" prints, or in
// what the API says.
func parseVersion(out string) (Version, error) {
	m := versionForm.FindStringSubmatch(out)
	if m == nil {
		return Version{}, fault.New(fault.Unavailable, "no version in what Cloud Hypervisor says: %.80q", out).By(fault.Host).
			WithHint("check the program, or name another with AEGIS_CLOUD_HYPERVISOR")
	}
	major, _ := strconv.Atoi(m[1]) // digits
	minor, _ := strconv.Atoi(m[2])
	return Version{major, minor}, nil
}

// before tells whether v is older than w.
func (v Version) before(w Version) bool {
	return v.Major < w.Major || v.Major == w.Major && v.Minor < w.Minor
}

// String returns "53.0".
func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }
