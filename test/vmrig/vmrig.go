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
func Home(t testing.TB) paths.Home {
	t.Helper()
	home := paths.Home(os.Getenv("AEGIS_TEST_HOME"))
	_, err := kernel.Installed(home)
	switch {
	case err == nil:
	case os.Getenv("AEGIS_REQUIRE_VM") == "1":
		t.Fatalf("VMs are required: %v", err)
	default:
		t.Skipf("no VMs here: %v", err)
	}
	return home
}

// Recipe returns what a VM boots, whose link that magic opens. It belongs to the test.
func Recipe(t testing.TB, magic guestproto.Magic) vmm.Spec {
	t.Helper()
	home := Home(t)
	k, err := kernel.Installed(home)
	if err != nil {
		t.Fatal(err)
	}
	own := paths.Home(filepath.Join(t.TempDir(), "home"))
	if err := own.Create(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"kernel.json", k.Version} {
		if err := os.Symlink(filepath.Join(home.Kernel(), name), filepath.Join(own.Kernel(), name)); err != nil {
			t.Fatal(err)
		}
	}
	initrd, err := kernel.EnsureInitrd(t.Context(), own, harness(t))
	if err != nil {
		t.Fatal(err)
	}
	dir := own.Instance("vm")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(dir, "disk")
	if err := rootfs.CopySparse(rootfs.TemplatePath(home), disk); err != nil {
		t.Fatal(err)
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
func harness(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "harness")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "github.com/xfeldman/aegisvm/cmd/aegis-harness")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// Boot starts a VM, which ends with the test. Its console is shown when that fails.
func Boot(t testing.TB, log *slog.Logger, spec vmm.Spec) vmm.Machine {
	t.Helper()
	driver, err := qemu.Open(t.Context(), qemu.Options{Accel: qemu.TCG, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	m, err := driver.Start(t.Context(), spec, vmm.Boot{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := m.Kill(ctx); err != nil {
			t.Errorf("kill: %v", err)
		}
		if t.Failed() {
			console, _ := os.ReadFile(filepath.Join(spec.Dir, "console.log"))
			t.Logf("console:\n%s", console[max(0, len(console)-8000):])
		}
	})
	return m
}
