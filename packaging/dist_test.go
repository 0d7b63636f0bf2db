//go:build dist

package packaging

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"debug/elf"
	"debug/macho"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// dist is the folder that make dist has filled, and its version.
func dist(t *testing.T) (dir, version string) {
	t.Helper()
	dir = os.Getenv("AEGIS_TEST_DIST")
	if dir == "" {
		t.Fatal("AEGIS_TEST_DIST is not set: run this with make check-dist")
	}
	b, err := os.ReadFile(filepath.Join(dir, "metadata.json"))
	if err != nil {
		t.Fatal(err)
	}
	var meta struct{ Version string }
	if err := json.Unmarshal(b, &meta); err != nil || meta.Version == "" {
		t.Fatalf("%v: %s", err, b)
	}
	return dir, meta.Version
}

// lists are the files of packages below their prefix, those of manual pages left out.
var lists = map[string][]string{
	"aegisvm": {
		"bin/aegis", "bin/aegis-mcp", "bin/aegisd", "lib/aegisvm/aegis-harness", "lib/aegisvm/aegis-mcp-guest", "lib/aegisvm/aegis-vmm-worker",
		"share/bash-completion/completions/aegis", "share/doc/aegisvm/NOTICES", "share/doc/aegisvm/copyright",
		"share/fish/vendor_completions.d/aegis.fish",
	},
	"aegisvm-agent-kit": {
		"lib/aegisvm/aegis-agent", "lib/aegisvm/aegis-gateway", "share/aegisvm/kits/agent.json", "share/doc/aegisvm-agent-kit/copyright",
	},
}

// more are the files of the core that each kind of package has elsewhere, or alone.
var more = map[string][]string{
	"deb":    {"lib/systemd/user/aegisd.service", "share/zsh/vendor-completions/_aegis"},
	"rpm":    {"lib/systemd/user/aegisd.service", "share/zsh/site-functions/_aegis"},
	"tar.gz": {"share/systemd/user/aegisd.service", "share/zsh/site-functions/_aegis", "share/aegisvm/launchd/dev.aegisvm.aegisd.plist", "share/aegisvm/launchd/entitlements.plist"},
}

// check compares what a package lists with what it should.
func check(t *testing.T, name, kind string, got []string) {
	t.Helper()
	want := slices.Clone(lists[name])
	if name == "aegisvm" {
		want = append(want, more[kind]...)
		if !slices.Contains(got, "share/man/man1/aegis.1.gz") || !slices.Contains(got, "share/man/man1/aegis-instance-start.1.gz") {
			t.Errorf("%s %s has no manual pages: %q", name, kind, got)
		}
	}
	got = slices.DeleteFunc(got, func(f string) bool { return strings.HasPrefix(f, "share/man/man1/aegis") })
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s %s has\n%q, not\n%q", name, kind, got, want)
	}
}

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).Output()
	if err != nil {
		t.Fatalf("%s %q: %v", name, args, err)
	}
	return string(out)
}

func TestDistPackages(t *testing.T) {
	dir, version := dist(t)
	for name := range lists {
		for _, arch := range []string{"amd64", "arm64"} {
			file := filepath.Join(dir, name+"_"+version+"_linux_"+arch)

			var files []string
			for line := range strings.Lines(output(t, "dpkg-deb", "-c", file+".deb")) {
				f := strings.Fields(line)
				if f[1] != "root/root" || strings.HasPrefix(f[0], "-rwxr-xr-x") != (strings.Contains(f[5], "/bin/") || strings.Contains(f[5], "/lib/aegisvm/")) && f[0][0] == '-' {
					t.Errorf("%s.deb: %s", file, line)
				}
				if f[0][0] == '-' {
					files = append(files, strings.TrimPrefix(f[5], "./usr/"))
				}
			}
			check(t, name, "deb", files)
			if got := strings.TrimSpace(output(t, "dpkg-deb", "-f", file+".deb", "Architecture")); got != arch {
				t.Errorf("%s.deb is for %s", file, got)
			}

			files = nil
			for line := range strings.Lines(output(t, "rpm", "-qp", "--qf", "[%{FILEMODES:perms} %{FILEUSERNAME} %{FILENAMES}\n]", file+".rpm")) {
				f := strings.Fields(line)
				if f[1] != "root" {
					t.Errorf("%s.rpm: %s", file, line)
				}
				if f[0][0] == '-' {
					files = append(files, strings.TrimPrefix(f[2], "/usr/"))
				}
			}
			check(t, name, "rpm", files)
		}
	}
}

// TestDistArchives looks into the archives of all platforms: what is in them, and for which
// machine.
func TestDistArchives(t *testing.T) {
	dir, version := dist(t)
	for name := range lists {
		for _, os := range []string{"linux", "darwin"} {
			for _, arch := range []string{"amd64", "arm64"} {
				stem := name + "_" + version + "_" + os + "_" + arch
				var files []string
				eachEntry(t, filepath.Join(dir, stem+".tar.gz"), func(h *tar.Header, r io.Reader) {
					rel, ok := strings.CutPrefix(h.Name, stem+"/")
					if !ok || h.Uname != "root" {
						t.Errorf("%s: %s of %s", stem, h.Name, h.Uname)
					}
					if h.Typeflag != tar.TypeReg {
						return
					}
					files = append(files, rel)
					if strings.HasPrefix(rel, "share/") {
						return
					}
					program, err := io.ReadAll(r)
					if err != nil {
						t.Fatal(err)
					}
					system := os
					if slices.Contains(guests, path.Base(rel)) {
						system = "linux"
					}
					if got := platform(program); got != system+"/"+arch {
						t.Errorf("%s: %s is for %s", stem, rel, got)
					}
				})
				check(t, name, "tar.gz", files)
			}
		}
	}
}

func eachEntry(t *testing.T, file string, do func(*tar.Header, io.Reader)) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // only read
	zr, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for tr := tar.NewReader(zr); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		do(h, tr)
	}
}

// platform tells what a program runs on.
func platform(program []byte) string {
	if f, err := elf.NewFile(bytes.NewReader(program)); err == nil {
		return "linux/" + map[elf.Machine]string{elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64"}[f.Machine]
	}
	if f, err := macho.NewFile(bytes.NewReader(program)); err == nil {
		return "darwin/" + map[macho.Cpu]string{macho.CpuAmd64: "amd64", macho.CpuArm64: "arm64"}[f.Cpu]
	}
	return "nothing"
}

// TestDistInstalls installs what is published, as install.sh of the same release does, and
// starts it.
func TestDistInstalls(t *testing.T) {
	dir, version := dist(t)
	files := http.StripPrefix("/latest/download", http.FileServer(http.Dir(dir)))
	server := httptest.NewServer(files)
	defer server.Close()
	home := t.TempDir()
	env := append(os.Environ(), "HOME="+home, "AEGIS_HOME="+filepath.Join(home, ".aegis"), "AEGIS_INSTALL_URL="+server.URL, "AEGIS_INSTALL_KEY=")
	run := func(program string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), program, args...)
		cmd.Env = env
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %q: %v\n%s", program, args, err, out)
		}
		return string(out)
	}
	prefix := filepath.Join(home, ".local")
	script := filepath.Join(dir, "install.sh")
	run("sh", script, "--prefix", prefix, "--kit")
	if got := run(filepath.Join(prefix, "bin", "aegis"), "--version"); got != "aegis "+version+"\n" {
		t.Errorf("it is %q, not %s", got, version)
	}
	if got := run(filepath.Join(prefix, "bin", "aegis"), "kit", "list"); !strings.Contains(got, "agent") || strings.Contains(got, "broken") {
		t.Errorf("the kits are %s", got)
	}
	run("sh", script, "--prefix", prefix, "--uninstall")
	if left, err := os.ReadDir(prefix); err != nil || len(left) > 0 {
		t.Errorf("it left %v, %v", left, err)
	}
}

// TestDistRest looks at the list of what the programs are made of, and at the formulae.
func TestDistRest(t *testing.T) {
	dir, version := dist(t)
	b, err := os.ReadFile(filepath.Join(dir, "aegisvm_"+version+".cdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	var sbom struct {
		BOMFormat  string
		Components []struct{ Name string }
	}
	if err := json.Unmarshal(b, &sbom); err != nil || sbom.BOMFormat != "CycloneDX" || len(sbom.Components) < 50 {
		t.Errorf("%v: %s with %d components", err, sbom.BOMFormat, len(sbom.Components))
	}
	sums, err := os.ReadFile(filepath.Join(dir, "checksums.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"aegisvm.rb", "aegisvm-agent-kit.rb"} {
		formula, err := os.ReadFile(filepath.Join(dir, "homebrew", name))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(formula)) {
			if sum, ok := strings.CutPrefix(strings.TrimSpace(line), "sha256 "); ok && !strings.Contains(string(sums), strings.Trim(sum, `"`)+"  ") {
				t.Errorf("%s: %s", name, line)
			}
		}
		if bytes.Contains(formula, []byte("@")) || !bytes.Contains(formula, []byte(`version "`+version+`"`)) {
			t.Errorf("%s is not filled in:\n%s", name, formula)
		}
	}
	if runtime.GOOS == "linux" && !bytes.Contains(sums, []byte("install.sh")) {
		t.Errorf("install.sh has no checksum: %s", sums)
	}
}
