package qemu

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xfeldman/aegisvm/internal/fault"
)

func TestParseVersion(t *testing.T) {
	for out, want := range map[string]Version{
		"QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright": {7, 2, 22},
		"QEMU emulator version 8.2.2 (Debian 1:8.2.2+ds-0ubuntu1)":                  {8, 2, 2},
		"QEMU emulator version 10.0.2":                                              {10, 0, 2},
		"QEMU emulator version 9.1":                                                 {9, 1, 0},
	} {
		if v, err := parseVersion(out); err != nil || v != want {
			t.Errorf("parseVersion(%q) = %v, %v", out, v, err)
		}
	}
	if _, err := parseVersion("segmentation fault"); fault.BlameOf(err) != fault.Host || fault.HintOf(err) == "" {
		t.Errorf("no version: %v without blame or hint", err)
	}
	for v, old := range map[Version]bool{{6, 2, 0}: true, {7, 1, 9}: true, {7, 2, 0}: false, {10, 0, 0}: false} {
		if v.before(oldest) != old {
			t.Errorf("%v is too old: %v", v, !old)
		}
	}
}

func TestInstallHint(t *testing.T) {
	for release, want := range map[string][2]string{
		"ID=debian\n": {"apt-get install qemu-system-x86", "apt-get install qemu-system-arm"},
		"ID=linuxmint\nID_LIKE=\"ubuntu debian\"": {"apt-get install qemu-system-x86", "apt-get install qemu-system-arm"},
		"ID=fedora": {"dnf install qemu-system-x86-core", "dnf install qemu-system-aarch64-core"},
		"ID=\"opensuse-leap\"\nID_LIKE='suse opensuse'": {"zypper install qemu-x86", "zypper install qemu-arm"},
		"ID=alpine":    {"apk add qemu-system-x86_64", "apk add qemu-system-aarch64"},
		"ID=arch":      {"pacman -S qemu-system-x86", "pacman -S qemu-system-aarch64"},
		"ID=something": {"install QEMU 7.2.0 or newer", "install QEMU 7.2.0 or newer"},
	} {
		path := filepath.Join(t.TempDir(), "os-release")
		if err := os.WriteFile(path, []byte(release), 0o600); err != nil {
			t.Fatal(err)
		}
		for i, arch := range []string{"amd64", "arm64"} {
			if got := installHint(path, arch); !strings.Contains(got, want[i]) {
				t.Errorf("%q on %s: %q, want %q", release, arch, got, want[i])
			}
		}
	}
	if got := installHint("/nonexistent", "amd64"); !strings.Contains(got, "PATH") {
		t.Errorf("without os-release: %q", got)
	}
}
