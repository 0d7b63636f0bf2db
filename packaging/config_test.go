package packaging

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// configuration is what we look at of .goreleaser.yaml.
type configuration struct {
	Builds []struct {
		ID, Main, Binary, Tool string
		Goos, Goarch           []string
		Env, Flags, Ldflags    []string
		ModTimestamp           string `yaml:"mod_timestamp"`
	}
	Archives []struct {
		ID  string
		IDs []string `yaml:"ids"`
	}
	Nfpms []struct {
		ID          string
		IDs         []string `yaml:"ids"`
		PackageName string   `yaml:"package_name"`
		Bindir      string
		Mtime       string
		Overrides   map[string]struct{ Dependencies []string }
	}
}

func readConfiguration(t *testing.T) configuration {
	t.Helper()
	b, err := os.ReadFile("../.goreleaser.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var c configuration
	if err := yaml.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// places says where each program is installed, below a prefix: people find programs in bin,
// the daemon finds others in lib/aegisvm.
var places = map[string]string{
	"aegis": "bin", "aegisd": "bin", "aegis-mcp": "bin",
	"aegis-harness": "lib/aegisvm", "aegis-mcp-guest": "lib/aegisvm", "aegis-agent": "lib/aegisvm",
	"aegis-gateway": "lib/aegisvm", "aegis-vmm-worker": "lib/aegisvm",
}

// guests are programs of the guest, Linux ones on all hosts.
var guests = []string{"aegis-harness", "aegis-mcp-guest", "aegis-agent"}

// ofKit are the programs of the Agent Kit; all others are AegisVM's own.
var ofKit = []string{"aegis-agent", "aegis-gateway"}

// TestEveryProgramIsReleased holds the release to the programs that there are: a new one has a
// place, is built for each platform, and is in one archive and, for each architecture, in one
// package.
func TestEveryProgramIsReleased(t *testing.T) {
	mains, err := filepath.Glob("../cmd/*")
	if err != nil || len(mains) == 0 {
		t.Fatal(mains, err)
	}
	c := readConfiguration(t)
	builds := map[string]int{} // index by id
	for i, b := range c.Builds {
		builds[b.ID] = i
	}
	for _, main := range mains {
		name := filepath.Base(main)
		place, ok := places[name]
		if !ok {
			t.Errorf("%s has no place: say in this test where it is installed, and add it to .goreleaser.yaml", name)
			continue
		}
		for _, arch := range []string{"amd64", "arm64"} {
			id := name + "-" + arch
			i, ok := builds[id]
			if !ok {
				t.Errorf("no build is called %s", id)
				continue
			}
			b := c.Builds[i]
			if b.Main != "./cmd/"+name || b.Binary != place+"/"+name || !slices.Equal(b.Goarch, []string{arch}) || !slices.Equal(b.Goos, []string{"linux", "darwin"}) {
				t.Errorf("%s: main %s, binary %s, for %v %v", id, b.Main, b.Binary, b.Goos, b.Goarch)
			}
			if isGuest := slices.Contains(guests, name); isGuest != (b.Tool == "packaging/go-linux") {
				t.Errorf("%s is built by %q", id, b.Tool)
			}
			if !slices.Contains(b.Env, "CGO_ENABLED=0") || !slices.Contains(b.Flags, "-trimpath") || b.ModTimestamp == "" ||
				!strings.Contains(strings.Join(b.Ldflags, " "), "buildinfo.version=") {
				t.Errorf("%s: %+v", id, b)
			}
			want := "aegisvm"
			if slices.Contains(ofKit, name) {
				want = "aegisvm-agent-kit"
			}
			var in []string
			for _, a := range c.Archives {
				if slices.Contains(a.IDs, id) {
					in = append(in, a.ID)
				}
			}
			for _, p := range c.Nfpms {
				if slices.Contains(p.IDs, id) {
					in = append(in, p.PackageName)
				}
			}
			if !slices.Equal(in, []string{want, want}) {
				t.Errorf("%s is in %v, not in the archive and the package %s", id, in, want)
			}
		}
		delete(builds, name+"-amd64")
		delete(builds, name+"-arm64")
	}
	if len(builds) > 0 {
		t.Errorf("builds of nothing: %v", builds)
	}
}

// TestPackagesNeedTheirQEMU looks at what packages depend on: each architecture on the QEMU of
// its own.
func TestPackagesNeedTheirQEMU(t *testing.T) {
	want := map[string]map[string]string{
		"aegisvm-amd64":     {"deb": "qemu-system-x86", "rpm": "/usr/bin/qemu-system-x86_64"},
		"aegisvm-arm64":     {"deb": "qemu-system-arm", "rpm": "/usr/bin/qemu-system-aarch64"},
		"aegisvm-agent-kit": {"deb": "aegisvm", "rpm": "aegisvm"},
	}
	for _, p := range readConfiguration(t).Nfpms {
		for format, dependency := range want[p.ID] {
			if got := p.Overrides[format].Dependencies; !slices.Contains(got, dependency) {
				t.Errorf("%s as %s depends on %q, not on %s", p.ID, format, got, dependency)
			}
		}
		if p.Bindir != "/usr" || p.Mtime == "" {
			t.Errorf("%s: bindir %q, mtime %q", p.ID, p.Bindir, p.Mtime)
		}
		delete(want, p.ID)
	}
	if len(want) > 0 {
		t.Errorf("there is no package %v", want)
	}
}
