package apt

import (
	"errors"
	"os"
	"strings"
)

// Distro is a release of a distribution that has apt.
type Distro struct {
	ID       string // "debian" or "ubuntu"
	Codename string // of the release, such as "bookworm"
}

// Fallback is the release whose packages are used where the host is another system.
var Fallback = Distro{"debian", "bookworm"}

func (d Distro) String() string { return d.ID + " " + d.Codename }

// errForeign means that the host is neither Debian nor Ubuntu nor made from them.
var errForeign = errors.New("the host is neither Debian nor Ubuntu")

// HostDistro reads the host's release from an os-release file. A distribution made
// from Ubuntu or Debian counts as what it was made from, where it says so.
func HostDistro(file string) (Distro, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return Distro{}, err
	}
	v := map[string]string{}
	for line := range strings.Lines(string(data)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			v[key] = strings.Trim(value, `"'`)
		}
	}
	for _, d := range []Distro{
		{"ubuntu", v["UBUNTU_CODENAME"]},
		{"debian", v["DEBIAN_CODENAME"]},
		{v["ID"], v["VERSION_CODENAME"]},
	} {
		if (d.ID == "debian" || d.ID == "ubuntu") && d.Codename != "" {
			return d, nil
		}
	}
	return Distro{}, errForeign
}
