//go:build integration

package qemu

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/internal/apt"
	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/guestlink"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/kernel"
	"github.com/xfeldman/aegisvm/internal/paths"
	"github.com/xfeldman/aegisvm/internal/rootfs"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/vmmtest"
)

// arm is a ground for guests of arm64, on whatever host. They are emulated.
type arm struct {
	home   paths.Home
	distro apt.Distro
	source []apt.Source
	kernel kernel.Kernel
}

const (
	armArch    = "arm64"
	armProgram = "qemu-system-aarch64"
)

// newARM needs packages that no other test does, and time: it is for `make stress`.
func newARM(t *testing.T) *arm {
	t.Helper()
	if os.Getenv("AEGIS_STRESS") != "1" {
		t.Skip("guests of another architecture take packages and minutes: make stress boots them")
	}
	if _, err := exec.LookPath(armProgram); err != nil {
		t.Fatalf("%v: install qemu-system-arm, as scripts/ensure-tools stress does", err)
	}
	a := &arm{home: paths.Home(filepath.Join(t.TempDir(), "home"))}
	if err := a.home.Create(); err != nil {
		t.Fatal(err)
	}
	var err error
	if a.distro, err = apt.HostDistro("/etc/os-release"); err != nil {
		a.distro = apt.Fallback
	}
	a.source = apt.HostSources("/etc/apt", a.distro)
	o := kernel.Options{Home: a.home, Distro: a.distro, Sources: a.source, Arch: armArch, Progress: func(line string) { t.Log(line) }}
	if cache := os.Getenv("AEGIS_SETUP_CACHE"); cache != "" {
		o.Cache = filepath.Join(cache, "kernel-"+armArch)
	}
	if a.kernel, err = kernel.Ensure(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	return a
}

// initrd returns an initramfs with a program of this module as PID 1.
func (a *arm) initrd(t *testing.T, pkg string) string {
	t.Helper()
	init := filepath.Join(t.TempDir(), "init")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", init, "github.com/xfeldman/aegisvm/"+pkg)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+armArch)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	path, err := a.kernel.EnsureInitrd(t.Context(), a.home.Kernel(), init)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func (a *arm) options() Options { return Options{Binary: armProgram, Accel: TCG, Arch: armArch} }

// debianPackages are enough of Debian to say so. Their scripts do not run: the host cannot
// execute them.
var debianPackages = []string{"base-files", "base-passwd", "dash", "coreutils", "grep", "sed", "mawk"}

// debian makes the image of a Debian userland, as an image of the product is.
func (a *arm) debian(t *testing.T) string {
	t.Helper()
	client, err := apt.New(filepath.Join(t.TempDir(), "apt"), armArch, a.source)
	if err == nil {
		err = client.Update(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	wanted := map[string]bool{}
	for _, from := range debianPackages {
		names, err := client.Closure(t.Context(), from, regexp.MustCompile(`^(lib|`+strings.Join(debianPackages, "|")+`)`))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			wanted[name] = true
		}
	}
	files, err := client.Download(t.Context(), slices.Collect(maps.Keys(wanted))...)
	if err != nil {
		t.Fatal(err)
	}
	tree := t.TempDir()
	for _, f := range files {
		if err := apt.Unpack(t.Context(), f, tree); err != nil {
			t.Fatal(err)
		}
	}
	tar := exec.CommandContext(t.Context(), "tar", "-C", tree, "--owner=0", "--group=0", "-c", ".")
	archive, err := tar.Output()
	if err != nil {
		t.Fatal(err)
	}
	image := rootfs.Image{Name: rootfs.BaseImage, Suite: a.distro.String(), Env: []string{"PATH=" + rootfs.DefaultPath}}
	if _, err := rootfs.BuildImage(t.Context(), a.home, image, bytes.NewReader(archive)); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(a.home.Images(), "base.erofs")
}

// TestDebianARM64 boots a Debian with AegisVM's own PID 1.
func TestDebianARM64(t *testing.T) {
	a := newARM(t)
	dir, magic := a.home.Instance("vm"), guestproto.NewMagic()
	disk := filepath.Join(dir, "disk")
	err := errors.Join(os.Mkdir(dir, 0o700), rootfs.EnsureTemplate(t.Context(), a.home))
	if err == nil {
		err = rootfs.CopySparse(rootfs.TemplatePath(a.home), disk)
	}
	if err != nil {
		t.Fatal(err)
	}
	spec := vmm.Spec{
		ID: "debian", Dir: dir, Memory: 512 * size.MiB, VCPUs: 2, Network: true,
		Kernel: a.kernel.Image, Initrd: a.initrd(t, "cmd/aegis-harness"), Cmdline: guestproto.MagicArg + "=" + magic.String(),
		Disks: []vmm.Disk{
			{Name: "base", Path: a.debian(t), Format: vmm.Raw, ReadOnly: true},
			{Name: "disk", Path: disk, Format: vmm.Raw},
		},
	}
	begin := time.Now()
	m, err := openDriver(t, a.options()).Start(t.Context(), spec, vmm.Boot{})
	if err != nil {
		t.Fatal(err)
	}
	defer kill(t, m)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	link, err := guestlink.Linker{Log: slog.New(slog.DiscardHandler)}.Link(ctx, m, magic, guestproto.Hello{
		MinVersion: guestproto.MinVersion, Version: guestproto.Version, Owned: []guestproto.Owned{},
		Identity: &guestproto.Identity{Instance: "inst-1", Hostname: "box"},
	})
	if err != nil {
		console, _ := os.ReadFile(filepath.Join(dir, "console.log"))
		t.Fatalf("%v\n%s", err, console)
	}
	defer link.Close() //nolint:errcheck // the machine is killed
	out := said(t, ctx, link, "/bin/dash", "-c", "uname -m; cat /etc/debian_version; nproc; echo kept > /root/file; cat /root/file; cat /etc/hostname; id -u")
	t.Logf("after %v: %q, kernel %s", time.Since(begin), out, a.kernel.Version)
	lines := strings.Fields(out)
	if len(lines) != 6 || lines[0] != "aarch64" || lines[2] != "2" || strings.Join(lines[3:], " ") != "kept box 0" {
		t.Errorf("the guest is %q", out)
	}
}

// TestConformanceARM64 holds arm64's command line, its machine, its saved states to the contract.
func TestConformanceARM64(t *testing.T) {
	a := newARM(t)
	g := ground{kernel: a.kernel.Image, initrd: a.initrd(t, "internal/vmm/vmmtest/guestinit")}
	vmmtest.Run(t, func(t *testing.T) vmmtest.Harness {
		t.Helper()
		h := harness(t, g)
		h.Driver = openDriver(t, a.options())
		h.Lose = func(t *testing.T, m vmm.Machine) vmm.Driver {
			t.Helper()
			m.(*Machine).Release()
			return openDriver(t, a.options())
		}
		return h
	})
}

// said runs a program in a guest to its end and returns what it printed.
func said(t *testing.T, ctx context.Context, link instance.Guest, command ...string) string { //nolint:revive // t first, as everywhere
	t.Helper()
	if err := link.Spawn(ctx, guestproto.Spawn{ID: "exec-1", Command: command}); err != nil {
		t.Fatal(err)
	}
	a, err := link.Attach(ctx, "exec-1", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close() //nolint:errcheck // it has ended
	var out []byte
	for {
		switch f, err := a.Recv(); {
		case errors.Is(err, io.EOF) || f.Type == frame.Exit:
			return string(out)
		case err != nil:
			t.Fatal(err)
		case f.Type == frame.Stdout || f.Type == frame.Stderr:
			out = append(out, f.Payload...)
		}
	}
}
