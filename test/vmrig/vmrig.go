// Package vmrig boots real VMs for the tests of packages below the daemon: the kernel and
// the base image of the test home, and the harness of this tree.
//
// It imports nothing that such a package could be: no link, no network.
package vmrig

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/kernel"
	"github.com/xfeldman/aegisvm/internal/paths"
	"github.com/xfeldman/aegisvm/internal/rootfs"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/qemu"
)

// Home returns the home that set-up has filled for tests. Without one the test fails
// where VMs are required, and is skipped elsewhere.
func Home(tb testing.TB) paths.Home {
	tb.Helper()
	home := paths.Home(os.Getenv("AEGIS_TEST_HOME"))
	_, err := kernel.Installed(home)
	switch {
	case err == nil:
	case os.Getenv("AEGIS_REQUIRE_VM") == "1":
		tb.Fatalf("VMs are required: %v", err)
	default:
		tb.Skipf("no VMs here: %v", err)
	}
	return home
}

// Recipe returns what a VM boots, whose link that magic opens. It belongs to the test.
func Recipe(tb testing.TB, magic guestproto.Magic) vmm.Spec {
	tb.Helper()
	home := Home(tb)
	k, err := kernel.Installed(home)
	if err != nil {
		tb.Fatal(err)
	}
	own := paths.Home(filepath.Join(tb.TempDir(), "home"))
	if err := own.Create(); err != nil {
		tb.Fatal(err)
	}
	for _, name := range []string{"kernel.json", k.Version} {
		if err := os.Symlink(filepath.Join(home.Kernel(), name), filepath.Join(own.Kernel(), name)); err != nil {
			tb.Fatal(err)
		}
	}
	initrd, err := kernel.EnsureInitrd(tb.Context(), own, harness(tb))
	if err != nil {
		tb.Fatal(err)
	}
	dir := own.Instance("vm")
	if err := os.Mkdir(dir, 0o700); err != nil {
		tb.Fatal(err)
	}
	disk := filepath.Join(dir, "disk")
	if err := rootfs.CopySparse(rootfs.TemplatePath(home), disk); err != nil {
		tb.Fatal(err)
	}
	return vmm.Spec{
		ID: "test", Dir: dir, Memory: 512 * size.MiB, VCPUs: 1, Kernel: k.Image, Initrd: initrd,
		Cmdline: guestproto.MagicArg + "=" + magic.String(),
		Disks: []vmm.Disk{
			{Name: "base", Path: filepath.Join(home.Images(), "base.erofs"), Format: vmm.Raw, ReadOnly: true},
			{Name: "disk", Path: disk, Format: vmm.Raw},
		},
		Network: true,
	}
}

// harness builds the guest's PID 1.
func harness(tb testing.TB) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "harness")
	build := exec.CommandContext(tb.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "github.com/xfeldman/aegisvm/cmd/aegis-harness")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		tb.Fatalf("%v\n%s", err, out)
	}
	return path
}

// Boot starts a VM, which ends with the test. Its console is shown when that fails.
func Boot(tb testing.TB, log *slog.Logger, spec vmm.Spec) vmm.Machine {
	tb.Helper()
	driver, err := qemu.Open(tb.Context(), qemu.Options{Binary: os.Getenv("AEGIS_QEMU"), Accel: qemu.TCG, Log: log})
	if err != nil {
		tb.Fatal(err)
	}
	m, err := driver.Start(tb.Context(), spec, vmm.Boot{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := m.Kill(ctx); err != nil {
			tb.Errorf("kill: %v", err)
		}
		if tb.Failed() {
			console, _ := os.ReadFile(filepath.Join(spec.Dir, "console.log"))
			tb.Logf("console:\n%s", console[max(0, len(console)-8000):])
		}
	})
	return m
}
