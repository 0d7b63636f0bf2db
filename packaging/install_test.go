package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// TestInstall installs, adds the Agent Kit, upgrades and uninstalls.
func TestInstall(t *testing.T) {
	r := newReleases(t)
	r.publish("1.0.0", map[string][]byte{
		"aegisvm.tar.gz":           core(t, "1.0.0", map[string]string{"share/doc/aegisvm/OLD": "old"}),
		"aegisvm-agent-kit.tar.gz": kit(t),
	})
	u := newUser(t, r)
	u.put(".local/bin/mine", "mine", 0o700)
	u.put(".aegis/config.toml", "", 0o600)
	before := u.files()

	if said := u.must(); !strings.Contains(said, "installed AegisVM 1.0.0") || !strings.Contains(said, ".local/bin on your PATH") {
		t.Errorf("it says %s", said)
	}
	if slices.Contains(u.files(), ".local/share/aegisvm/kits/agent.json") {
		t.Error("the kit came unasked")
	}
	if runtime.GOOS == "linux" {
		unit := u.read(".local/share/systemd/user/aegisd.service")
		if want := "ExecStart=" + filepath.Join(u.home, ".local/bin/aegisd") + "\n"; unit != want {
			t.Errorf("the unit has %q, not %q", unit, want)
		}
	}
	u.must("--kit")
	withKit := u.files()

	// The newest release has a file less, a file more, and another content.
	r.publish("1.1.0", map[string][]byte{
		"aegisvm.tar.gz":           core(t, "1.1.0", map[string]string{"share/doc/new/NEW": "new"}),
		"aegisvm-agent-kit.tar.gz": kit(t),
	})
	if said := u.must(); !strings.Contains(said, "installed AegisVM 1.1.0") || !strings.Contains(said, "it was 1.0.0") ||
		!strings.Contains(said, "Agent Kit 1.1.0") {
		t.Errorf("it says %s", said)
	}
	upgraded := u.files()
	if slices.Contains(upgraded, ".local/share/doc/aegisvm/OLD") || !slices.Contains(upgraded, ".local/share/doc/new/NEW") {
		t.Errorf("after the upgrade there are %q", upgraded)
	}
	if got := u.read(".local/lib/aegisvm/aegis-harness"); got != "harness 1.1.0" {
		t.Errorf("the harness is %q", got)
	}
	// And back, by name.
	u.must("--version", "v1.0.0")
	if got := u.read(".local/lib/aegisvm/aegis-harness"); got != "harness 1.0.0" {
		t.Errorf("the harness is %q", got)
	}
	if again := slices.DeleteFunc(u.files(), func(f string) bool { return f == "calls" || strings.HasPrefix(f, ".local/share/doc/new") }); !slices.Equal(
		again, slices.DeleteFunc(withKit, func(f string) bool { return f == "calls" })) {
		t.Errorf("of the way back there are\n%q, not\n%q", again, withKit)
	}

	said := u.must("--uninstall")
	if calls := u.read("calls"); !strings.HasSuffix(calls, "\ndown\n") {
		t.Errorf("the daemon was not stopped: %q", calls)
	}
	if err := os.Remove(filepath.Join(u.home, "calls")); err != nil {
		t.Fatal(err)
	}
	if after := u.files(); !slices.Equal(after, before) {
		t.Errorf("left of it are %q, there were %q\n%s", after, before, said)
	}
	if said, ok := u.install("--uninstall"); ok || !strings.Contains(said, "is not installed") {
		t.Errorf("twice: %v, %s", ok, said)
	}
}

// TestInstallRefuses changes a release behind its signer's back: nothing is put in place.
func TestInstallRefuses(t *testing.T) {
	archiveName := "aegisvm_1.0.0_" + runtime.GOOS + "_" + runtime.GOARCH + ".tar.gz"
	for name, c := range map[string]struct {
		change func(*releases, *user)
		says   string
		args   []string
	}{
		"a changed archive": {func(r *releases, _ *user) { r.set("1.0.0", archiveName, core(t, "1.0.0-evil", nil)) }, "the digest of " + archiveName, nil},
		"a kit that is changed": {func(r *releases, _ *user) {
			r.set("1.0.0", strings.Replace(archiveName, "aegisvm", "aegisvm-agent-kit", 1), []byte("evil"))
		}, "the digest of aegisvm-agent-kit", []string{"--kit"}},
		"changed checksums": {func(r *releases, _ *user) {
			r.set("1.0.0", "checksums.txt", []byte(strings.Repeat("0", 64)+"  "+archiveName+"\n"))
		}, "the signature of", nil},
		"no signature": {func(r *releases, _ *user) { r.set("1.0.0", "checksums.txt.sig", nil) }, "the signature of", nil},
		"nothing for this platform": {func(r *releases, _ *user) {
			list := []byte(strings.Repeat("0", 64) + "  aegisvm_1.0.0_plan9_mips.tar.gz\n")
			r.set("1.0.0", "checksums.txt", list)
			r.set("1.0.0", "checksums.txt.sig", r.sign(list))
		}, "the release has no aegisvm for", nil},
		"a name that leads elsewhere": {func(r *releases, _ *user) {
			list := []byte(strings.Repeat("0", 64) + "  aegisvm_/../../1.0.0_" + runtime.GOOS + "_" + runtime.GOARCH + ".tar.gz\n")
			r.set("1.0.0", "checksums.txt", list)
			r.set("1.0.0", "checksums.txt.sig", r.sign(list))
		}, "the release has no aegisvm for", nil},
		"no such release": {func(*releases, *user) {}, "cannot fetch", []string{"--version", "9.9.9"}},
		"no key": {func(_ *releases, u *user) {
			u.env = slices.DeleteFunc(u.env, func(v string) bool { return strings.HasPrefix(v, "AEGIS_INSTALL_KEY=") })
		}, "there is no key", nil},
		"an unknown option": {func(*releases, *user) {}, "unknown argument", []string{"--prefiks", "/usr"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newReleases(t)
			r.publish("1.0.0", map[string][]byte{"aegisvm.tar.gz": core(t, "1.0.0", nil), "aegisvm-agent-kit.tar.gz": kit(t)})
			u := newUser(t, r)
			c.change(r, u)
			said, ok := u.install(append([]string{"--prefix", filepath.Join(u.home, "prefix")}, c.args...)...)
			if ok || !strings.Contains(said, c.says) {
				t.Errorf("%v; it does not say %q: %s", ok, c.says, said)
			}
			if left := u.files(); len(left) > 0 {
				t.Errorf("it installed %q", left)
			}
		})
	}
}

// TestInstallPackages looks at what the package managers of distributions are asked for.
func TestInstallPackages(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("there are packages for Linux only")
	}
	for name, c := range map[string]struct {
		release   string // of the distribution
		installed string // program that says a package is there
		want      []string
	}{
		"debian": {"ID=debian\n", "dpkg-query", []string{
			"sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends TMP/aegisvm_1.0.0_deb TMP/aegisvm-agent-kit_1.0.0_deb mmdebstrap uidmap",
			"sudo dpkg -r aegisvm-agent-kit aegisvm",
		}},
		"a child of ubuntu": {"ID=mint\nID_LIKE=\"ubuntu debian\"\n", "dpkg-query", []string{
			"sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends TMP/aegisvm_1.0.0_deb TMP/aegisvm-agent-kit_1.0.0_deb mmdebstrap uidmap",
			"sudo dpkg -r aegisvm-agent-kit aegisvm",
		}},
		"fedora": {"ID=fedora\n", "rpm", []string{
			"sudo dnf install -y TMP/aegisvm_1.0.0_rpm TMP/aegisvm-agent-kit_1.0.0_rpm",
			"sudo rpm -e aegisvm-agent-kit aegisvm",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newReleases(t)
			r.publish("1.0.0", map[string][]byte{
				"aegisvm.deb": []byte("d"), "aegisvm.rpm": []byte("r"), "aegisvm-agent-kit.deb": []byte("kd"), "aegisvm-agent-kit.rpm": []byte("kr"),
			})
			u := newUser(t, r)
			u.put("os-release", c.release, 0o600)
			u.fake("sudo", `echo "sudo $*" >>"$HOME/asked"`)
			u.fake("dnf", "exit 1") // what is not asked for through sudo
			u.fake("rpm", "exit 1")
			u.fake("dpkg-query", "exit 1")
			u.env = append(u.env, "AEGIS_INSTALL_OS_RELEASE="+filepath.Join(u.home, "os-release"))
			u.must("--system", "--kit")
			u.fake(c.installed, "echo install ok installed")
			u.must("--system", "--uninstall")

			got := strings.Split(strings.TrimSpace(u.read("asked")), "\n")
			for i, line := range got {
				words := strings.Fields(line)
				for j, w := range words {
					if base := filepath.Base(w); strings.HasPrefix(w, u.tempDir()) {
						base = strings.Replace(base, "_"+runtime.GOOS+"_"+runtime.GOARCH+".", "_", 1)
						words[j] = "TMP/" + base
					}
				}
				got[i] = strings.Join(words, " ")
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("asked\n%s\nnot\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

// TestKeyHasItsPlace holds what stage needs: one line for the key, and nothing that a tree
// without one would believe.
func TestKeyHasItsPlace(t *testing.T) {
	b, err := os.ReadFile("install.sh")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count("\n"+string(b), "\n@KEY@\n"); n != 1 {
		t.Errorf("install.sh has %d lines @KEY@", n)
	}
}

// TestScripts reads the scripts as their shells do, and as shellcheck does where it is.
func TestScripts(t *testing.T) {
	for _, script := range []string{"install.sh", "deb/before-remove", "go-linux", "stage", "notices", "formulae", "../scripts/dist"} {
		shell := "bash"
		if b, err := os.ReadFile(script); err != nil {
			t.Fatal(err)
		} else if strings.HasPrefix(string(b), "#!/bin/sh\n") {
			shell = "sh"
		}
		if out, err := exec.CommandContext(t.Context(), shell, "-n", script).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", script, err, out)
		}
		if check, err := exec.LookPath("shellcheck"); err == nil {
			if out, err := exec.CommandContext(t.Context(), check, script).CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", script, err, out)
			}
		}
	}
}
