package apt

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestHostDistro(t *testing.T) {
	for text, want := range map[string]Distro{
		"ID=debian\nVERSION_CODENAME=bookworm\n":                                     {"debian", "bookworm"},
		"ID=ubuntu\nUBUNTU_CODENAME=jammy\nVERSION_CODENAME=jammy\n":                 {"ubuntu", "jammy"},
		"ID=linuxmint\nID_LIKE=\"ubuntu debian\"\nUBUNTU_CODENAME=noble\n":           {"ubuntu", "noble"},
		"ID=fedora\nVERSION_CODENAME=\"\"\n":                                         {},
		"ID=\"debian\"\nVERSION_CODENAME='trixie'\n":                                 {"debian", "trixie"},
		"ID=lmde\nID_LIKE=debian\nDEBIAN_CODENAME=bookworm\nVERSION_CODENAME=faye\n": {"debian", "bookworm"},
		"ID=debian\n": {},
		"# nothing\n": {},
	} {
		file := filepath.Join(t.TempDir(), "os-release")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := HostDistro(file)
		if got != want || (err == nil) != (want != Distro{}) {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
}

func TestHostSources(t *testing.T) {
	bookworm := Distro{"debian", "bookworm"}
	for name, c := range map[string]struct {
		files map[string]string
		want  []string
	}{
		"deb822 with strangers": {map[string]string{
			"sources.list.d/debian.sources": "Types: deb deb-src\nURIs: http://mirror/debian\n# a comment\nSuites: bookworm bookworm-updates\n bookworm-backports\nComponents: main contrib\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\nTypes: deb\nURIs: http://mirror/security\nSuites: bookworm-security\nComponents: main\n\nTypes: deb\nEnabled: no\nURIs: http://off/\nSuites: bookworm\nComponents: main\n",
			"sources.list.d/node.sources":   "Types: deb\nURIs: https://node/\nSuites: nodistro\nComponents: main\n",
			"sources.list.d/vendor.list":    "deb [arch=amd64 signed-by=/usr/share/keyrings/vendor.gpg] https://vendor/ bookworm main\n",
			"sources.list.d/docker.list":    "deb [signed-by=/etc/apt/keyrings/docker.asc] https://docker/ bookworm stable\n",
			"sources.list.d/old.list.save":  "deb http://saved/ bookworm main\n",
		}, []string{
			"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror/debian bookworm main contrib",
			"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror/debian bookworm-updates main contrib",
			"deb http://mirror/security bookworm-security main",
		}},
		"one line": {map[string]string{
			"sources.list": "# deb http://no/ bookworm main\ndeb http://a/ bookworm main # yes\n  deb [ trusted=yes ]  http://b/ bookworm-updates   main  non-free\ndeb-src http://a/ bookworm main\ndeb http://a/ trixie main\n",
		}, []string{"deb http://a/ bookworm main", "deb [trusted=yes] http://b/ bookworm-updates main non-free"}},
		"only updates": {map[string]string{"sources.list": "deb http://a/ bookworm-updates main\n"}, Lines(defaultSources(bookworm))},
		"nothing":      {nil, Lines(defaultSources(bookworm))},
	} {
		etc := t.TempDir()
		for file, text := range c.files {
			path := filepath.Join(etc, file)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		if got := Lines(HostSources(etc, bookworm)); !slices.Equal(got, c.want) {
			t.Errorf("%s:\n%s\nwant\n%s", name, strings.Join(got, "\n"), strings.Join(c.want, "\n"))
		}
	}
}

func TestDependencies(t *testing.T) {
	got := dependencies("linux-image-6.1 (= 6.1-1), a:any | b,\n c (>= 2) , ,d")
	if want := []string{"linux-image-6.1", "a", "c", "d"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// repository makes an archive of packages on disk, each given by its Depends.
func repository(t *testing.T, packages map[string]string) Source {
	t.Helper()
	for _, program := range []string{"apt-get", "apt-cache", "dpkg-deb"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("this host has no %s", program)
		}
	}
	repo := t.TempDir()
	var index strings.Builder
	for name, depends := range packages {
		control := fmt.Sprintf("Package: %s\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: a test\n", name)
		if depends != "" {
			control += "Depends: " + depends + "\n"
		}
		root := filepath.Join(t.TempDir(), name)
		share := filepath.Join(root, "usr/share", name)
		if err := errors.Join(
			os.MkdirAll(share, 0o755), os.Mkdir(filepath.Join(root, "DEBIAN"), 0o755),
			os.WriteFile(filepath.Join(root, "DEBIAN/control"), []byte(control), 0o600),
			os.WriteFile(filepath.Join(share, "file"), []byte("of "+name), 0o600),
		); err != nil {
			t.Fatal(err)
		}
		deb := filepath.Join(repo, name+".deb")
		if out, err := exec.Command("dpkg-deb", "--root-owner-group", "-b", root, deb).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		data, err := os.ReadFile(deb)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&index, "%sFilename: ./%s.deb\nSize: %d\nSHA256: %x\n\n", control, name, len(data), sha256.Sum256(data))
	}
	if err := os.WriteFile(filepath.Join(repo, "Packages"), []byte(index.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return Source{Options: "trusted=yes", URI: "file:" + repo, Suite: "./"}
}

func TestClient(t *testing.T) {
	source := repository(t, map[string]string{
		"linux-image-cloud": "linux-image-6.1-cloud (= 1)", "linux-image-6.1-cloud": "kmod, linux-modules-6.1 | other",
		"linux-modules-6.1": "", "kmod": "",
	})
	c, err := New(filepath.Join(t.TempDir(), "apt"), "", []Source{source})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	names, err := c.Closure(t.Context(), "linux-image-cloud", regexp.MustCompile(`^linux-(image|modules)-[0-9]`))
	if err != nil || !slices.Equal(names, []string{"linux-image-6.1-cloud", "linux-modules-6.1"}) {
		t.Fatalf("closure %v, %v", names, err)
	}
	files, err := c.Download(t.Context(), names...)
	if err != nil || len(files) != 2 {
		t.Fatalf("files %v, %v", files, err)
	}
	tree := filepath.Join(t.TempDir(), "tree")
	for _, f := range files {
		if err := Unpack(t.Context(), f, tree); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range names {
		if data, err := os.ReadFile(filepath.Join(tree, "usr/share", name, "file")); err != nil || string(data) != "of "+name {
			t.Errorf("%s holds %q, %v", name, data, err)
		}
	}
	if _, err := c.Download(t.Context(), "no-such-package"); err == nil || !strings.Contains(err.Error(), "no-such-package") {
		t.Errorf("a package that is not there: %v", err)
	}
	if _, err := c.Closure(t.Context(), "no-such-package", regexp.MustCompile(`.`)); err == nil {
		t.Error("the closure of a package that is not there is no error")
	}
}

// TestWrongDigest: what apt downloads is what the lists say, or nothing.
func TestWrongDigest(t *testing.T) {
	source := repository(t, map[string]string{"a": ""})
	index := filepath.Join(strings.TrimPrefix(source.URI, "file:"), "Packages")
	data, err := os.ReadFile(index)
	if err != nil {
		t.Fatal(err)
	}
	changed := regexp.MustCompile(`SHA256: ....`).ReplaceAll(data, []byte("SHA256: 0000"))
	if err := os.WriteFile(index, changed, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := New(filepath.Join(t.TempDir(), "apt"), "", []Source{source})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	if files, err := c.Download(t.Context(), "a"); err == nil {
		t.Errorf("a changed package came as %v", files)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("Types: deb\nURIs: a\n b\nSuites: s\nComponents: main\n\n x: y\ndeb [a=b] c d e\n")
	f.Fuzz(func(_ *testing.T, text string) {
		for _, s := range append(parseList(text), parseDeb822(text)...) { // must return
			_ = s.official(Fallback)
		}
	})
}

// TestArchitecture: a client for another architecture sees that one's packages, and no others.
func TestArchitecture(t *testing.T) {
	for _, arch := range []string{"", "arm64", "riscv64"} {
		c, err := New(filepath.Join(t.TempDir(), "apt"), arch, nil)
		if err != nil {
			t.Fatal(err)
		}
		out, err := c.run(t.Context(), "apt-config", "dump", "--format", "%f %v%n", "APT::Architecture")
		all, err2 := c.run(t.Context(), "apt-config", "dump", "--format", "%f %v%n", "APT::Architectures")
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		if arch == "" {
			arch = goarch
		}
		if want := "APT::Architecture " + arch + "\n"; out != want || strings.Count(all, ":: ") > 1 || !strings.Contains(all, ":: "+arch) && arch != goarch {
			t.Errorf("%q, all %q; want %q", out, all, want)
		}
	}
}
