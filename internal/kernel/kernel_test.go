package kernel

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/internal/apt"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/paths"
)

const release = "6.1.0-test"

var update = flag.Bool("update", false, "rewrite golden files")

// vmlinuz is the smallest file that passes for this host's kernel.
func vmlinuz() []byte {
	if runtime.GOARCH == "arm64" {
		image := make([]byte, 4096)
		copy(image[56:], "ARM\x64")
		return image
	}
	return elfFile(".text", []byte("kernel"), true)
}

// hostRoot makes a file system root with a kernel in it.
func hostRoot(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	standard(t, filepath.Join(root, "lib/modules", release))
	boot := filepath.Join(root, "boot")
	if err := errors.Join(os.Mkdir(boot, 0o700), os.WriteFile(filepath.Join(boot, "vmlinuz-"+release), vmlinuz(), 0o600)); err != nil {
		t.Fatal(err)
	}
	return root
}

func newHome(t *testing.T) paths.Home {
	t.Helper()
	home := paths.Home(filepath.Join(t.TempDir(), "home"))
	if err := home.Create(); err != nil {
		t.Fatal(err)
	}
	return home
}

// fakePrograms puts scripts into a folder that is the whole PATH.
func fakePrograms(t *testing.T, scripts map[string]string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range scripts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\nPATH=/usr/bin:/bin\n"+text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
}

func TestKernelOfTheHost(t *testing.T) {
	home := newHome(t)
	if _, err := Installed(home); fault.KindOf(err) != fault.Unavailable || fault.HintOf(err) == "" {
		t.Errorf("an empty home: %v, hint %q", err, fault.HintOf(err))
	}
	o := Options{Home: home, HostRoot: hostRoot(t), Release: release}
	k, err := Ensure(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Installed(home)
	if err != nil || got != k || k.Version != release {
		t.Errorf("Installed: %+v, %v\nEnsure: %+v", got, err, k)
	}
	if _, err := os.Stat(filepath.Join(k.Modules, "kernel/drivers/gpu/unwanted.ko")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a module that no machine loads was copied: %v", err)
	}
	o.HostRoot = "/nowhere"
	if again, err := Ensure(t.Context(), o); err != nil || again != k {
		t.Errorf("a second Ensure: %+v, %v", again, err)
	}
}

func TestHalfAKernelIsNone(t *testing.T) {
	home := newHome(t)
	k, err := Ensure(t.Context(), Options{Home: home, HostRoot: hostRoot(t), Release: release})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(k.Image, 0o600), os.Truncate(k.Image, 10)); err != nil {
		t.Fatal(err)
	}
	if _, err := Installed(home); err == nil {
		t.Error("an image that was cut short is taken")
	}
	desc := filepath.Join(home.Kernel(), descriptionName)
	if err := os.WriteFile(desc, []byte(`{"version":"../../etc"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Installed(home); err == nil || !strings.Contains(err.Error(), "bad version") {
		t.Errorf("a version that climbs: %v", err)
	}
}

func TestKernelFromTheArchive(t *testing.T) {
	root := hostRoot(t) // what dpkg-deb unpacks
	fakePrograms(t, map[string]string{
		"apt-get":   `case "$3" in update) ;; download) shift 4; for p; do : > "${p}_1_all.deb"; done ;; esac`,
		"apt-cache": `case "$6" in linux-image-[0-9]*) echo "Depends: linux-modules-6.1.0-test" ;; linux-modules*) echo "Depends: libc6" ;; *) echo "Depends: linux-image-6.1.0-test (= 1)" ;; esac`,
		"dpkg-deb":  `cp -R ` + root + `/. "$3"`,
	})
	home := newHome(t)
	var said []string
	k, err := Ensure(t.Context(), Options{
		Home: home, HostRoot: "/nowhere", Release: release, Distro: apt.Distro{ID: "debian", Codename: "bookworm"},
		Progress: func(line string) { said = append(said, line) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if k.Version != release || k.Source != "package linux-image-6.1.0-test of debian bookworm" {
		t.Errorf("kernel %+v", k)
	}
	if text := strings.Join(said, "\n"); !strings.Contains(text, "downloading linux-image-6.1.0-test") {
		t.Errorf("nobody was told of the download:\n%s", text)
	}
	entries, err := os.ReadDir(filepath.Join(home.Kernel(), release))
	if err != nil || len(entries) != 2 {
		t.Errorf("beside image and modules stayed %v, %v", entries, err)
	}
}

// TestKernelWithMore: a host's kernel without the extra modules is passed over, the package
// is the one that has them, and only what machines load is kept, the extra ones with it.
func TestKernelWithMore(t *testing.T) {
	lacking, root := hostRoot(t), hostRoot(t)
	modules(t, filepath.Join(root, "lib/modules", release), standardBuiltin, map[string]string{"fs/9p/9p.ko": ""})
	fakePrograms(t, map[string]string{
		"apt-get":   `case "$3" in update) ;; download) shift 4; for p; do : > "${p}_1_all.deb"; done ;; esac`,
		"apt-cache": `case "$6" in linux-image-[0-9]*) ;; linux-image-cloud-*) exit 1 ;; *) echo "Depends: linux-image-6.1.0-test (= 1)" ;; esac`,
		"dpkg-deb":  `cp -R ` + root + `/. "$3"`,
	})
	home := newHome(t)
	k, err := Ensure(t.Context(), Options{
		Home: home, HostRoot: lacking, Release: release, Distro: apt.Distro{ID: "debian", Codename: "bookworm"}, Extra: []string{"9p"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Installed(home); err != nil || got != k || k.Extra != "9p" || !strings.HasPrefix(k.Source, "package ") {
		t.Errorf("%+v, %v, installed %+v", k, err, got)
	}
	if _, err := os.Stat(filepath.Join(k.Modules, "kernel/fs/9p/9p.ko")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(k.Modules, "kernel/drivers/gpu/unwanted.ko")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a module that no machine loads was kept: %v", err)
	}
}

// TestKernelOfAnotherArchitecture: the host's kernel is passed over, the package is the other
// architecture's, and machines of this home do not get it.
func TestKernelOfAnotherArchitecture(t *testing.T) {
	other, image := "arm64", make([]byte, 4096)
	copy(image[56:], "ARM\x64")
	if runtime.GOARCH == other {
		other, image = "amd64", elfFile(".text", []byte("kernel"), true)
	}
	root := hostRoot(t)
	if err := os.WriteFile(filepath.Join(root, "boot", "vmlinuz-"+release), image, 0o600); err != nil {
		t.Fatal(err)
	}
	fakePrograms(t, map[string]string{
		"apt-get":   `case "$3" in update) ;; download) grep -q 'APT::Architecture "` + other + `"' "$2"; shift 4; for p; do : > "${p}_1_all.deb"; done ;; esac`,
		"apt-cache": `case "$6" in linux-image-[0-9]*) ;; linux-image-cloud-` + other + `) echo "Depends: linux-image-6.1.0-test (= 1)" ;; *) exit 1 ;; esac`,
		"dpkg-deb":  `cp -R ` + root + `/. "$3"`,
	})
	home := newHome(t)
	o := Options{Home: home, HostRoot: hostRoot(t), Release: release, Distro: apt.Distro{ID: "debian", Codename: "bookworm"}, Arch: other}
	k, err := Ensure(t.Context(), o)
	if err != nil || k.Arch != other || !strings.HasPrefix(k.Source, "package ") {
		t.Fatalf("%+v, %v", k, err)
	}
	if again, err := Ensure(t.Context(), o); err != nil || again != k {
		t.Errorf("the second time %+v, %v", again, err)
	}
	if _, err := Installed(home); err == nil {
		t.Error("machines of this host would boot it")
	}
}

func TestCopySlim(t *testing.T) {
	from, to := newHome(t), newHome(t)
	root := hostRoot(t)
	fakePrograms(t, map[string]string{
		"apt-get":   `case "$3" in update) ;; download) shift 4; for p; do : > "${p}_1_all.deb"; done ;; esac`,
		"apt-cache": `case "$6" in linux-image-[0-9]*) ;; *) echo "Depends: linux-image-6.1.0-test (= 1)" ;; esac`,
		"dpkg-deb":  `cp -R ` + root + `/. "$3"`,
	})
	whole, err := Ensure(t.Context(), Options{Home: from, HostRoot: "/nowhere", Release: release, Distro: apt.Distro{ID: "debian", Codename: "bookworm"}})
	if err != nil {
		t.Fatal(err)
	}
	slim, err := CopySlim(from, to)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Installed(to); err != nil || got != slim || slim.Digest == whole.Digest || slim.Version != whole.Version {
		t.Errorf("%+v, %v; installed %+v", slim, err, got)
	}
	const unwanted, wanted = "kernel/drivers/gpu/unwanted.ko", "kernel/fs/overlayfs/overlay.ko"
	for _, path := range []string{filepath.Join(whole.Modules, unwanted), filepath.Join(slim.Modules, wanted)} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(filepath.Join(slim.Modules, unwanted)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a module that no machine loads was copied: %v", err)
	}
}

func TestNoKernelAnywhere(t *testing.T) {
	fakePrograms(t, map[string]string{"apt-get": "echo 'E: no network' >&2; exit 100"})
	home := newHome(t)
	_, err := Ensure(t.Context(), Options{Home: home, HostRoot: "/nowhere", Release: release})
	if fault.KindOf(err) != fault.Unavailable || fault.BlameOf(err) != fault.Host || !strings.Contains(err.Error(), "no network") {
		t.Errorf("error %v (%s, %s)", err, fault.KindOf(err), fault.BlameOf(err))
	}
	if entries, err := os.ReadDir(home.Kernel()); err != nil || len(entries) != 0 {
		t.Errorf("%v, %v stayed behind", entries, err)
	}
}

func TestKernelCache(t *testing.T) {
	cache := t.TempDir()
	first, err := Ensure(t.Context(), Options{Home: newHome(t), HostRoot: hostRoot(t), Release: release, Cache: cache})
	if err != nil {
		t.Fatal(err)
	}
	fakePrograms(t, map[string]string{"apt-get": "exit 1"})
	second, err := Ensure(t.Context(), Options{Home: newHome(t), HostRoot: "/nowhere", Release: release, Cache: cache})
	if err != nil || second.Digest != first.Digest || second.Image == first.Image {
		t.Fatalf("from the cache: %+v, %v", second, err)
	}
	module := filepath.Join(cache, release, modulesName, "kernel/fs/overlayfs/overlay.ko")
	if err := errors.Join(os.Remove(module), os.WriteFile(module, []byte("changed"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if k, err := Ensure(t.Context(), Options{Home: newHome(t), HostRoot: "/nowhere", Release: release, Cache: cache}); err == nil {
		t.Errorf("a changed cache was used: %+v", k)
	}
}

func TestInitrd(t *testing.T) {
	home := newHome(t)
	harness := filepath.Join(t.TempDir(), "harness")
	writeHarness := func(text string) {
		if err := os.WriteFile(harness, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	writeHarness("the harness")
	if _, err := EnsureInitrd(t.Context(), home, harness); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("without a kernel: %v", err)
	}
	if _, err := Ensure(t.Context(), Options{Home: home, HostRoot: hostRoot(t), Release: release}); err != nil {
		t.Fatal(err)
	}
	path, err := EnsureInitrd(t.Context(), home, harness)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	list, contents := readCPIO(t, data)
	golden := filepath.Join("testdata", "initrd.txt")
	if *update {
		if err := os.WriteFile(golden, []byte(list), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if list != string(want) {
		t.Errorf("the initramfs holds\n%s\nwant\n%s", list, want)
	}
	if contents["init"] != "the harness" {
		t.Errorf("init is %q", contents["init"])
	}

	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := EnsureInitrd(t.Context(), home, harness); err != nil || again != path {
		t.Errorf("again: %s, %v, want %s", again, err, path)
	}
	if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) {
		t.Errorf("the initramfs was made again: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := EnsureInitrd(t.Context(), home, harness); err != nil {
		t.Fatal(err)
	}
	if same, err := os.ReadFile(path); err != nil || string(same) != string(data) {
		t.Errorf("the same input gave another initramfs: %v", err)
	}

	for i := range initrdsKept + 2 {
		writeHarness(fmt.Sprint("another harness ", i))
		old := time.Now().Add(-time.Hour)
		if err := os.Chtimes(path, old, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if _, err := EnsureInitrd(t.Context(), home, harness); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the oldest initramfs is still there: %v", err)
	}
	if files, err := filepath.Glob(filepath.Join(home.Kernel(), initrdPrefix+"*")); err != nil || len(files) != initrdsKept {
		t.Errorf("%d are kept, %v, want %d", len(files), err, initrdsKept)
	}
}

// readCPIO lists an archive and returns the contents of its files.
func readCPIO(t *testing.T, data []byte) (list string, contents map[string]string) {
	t.Helper()
	contents = map[string]string{}
	var lines strings.Builder
	for pos := 0; ; {
		field := func(i int) int {
			v, err := strconv.ParseUint(string(data[pos+6+8*i:pos+14+8*i]), 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			return int(v)
		}
		if string(data[pos:pos+6]) != "070701" {
			t.Fatalf("no magic at %d", pos)
		}
		mode, size, nameSize := field(1), field(6), field(11)
		name := string(data[pos+110 : pos+110+nameSize-1])
		start := (pos + 110 + nameSize + 3) &^ 3
		if name == "TRAILER!!!" {
			return lines.String(), contents
		}
		fmt.Fprintf(&lines, "%06o %d,%d %s\n", mode, field(9), field(10), name)
		contents[name] = string(data[start : start+size])
		pos = (start + size + 3) &^ 3
	}
}
