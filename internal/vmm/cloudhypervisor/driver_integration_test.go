//go:build integration

package cloudhypervisor

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/internal/kernel"
	"github.com/xfeldman/aegisvm/internal/paths"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/vmmtest"
)

// ground is the kernel and the initramfs with the suite's guest.
type ground struct{ kernel, initrd string }

var testGround = sync.OnceValues(func() (ground, error) {
	home := paths.Home(os.Getenv("AEGIS_TEST_HOME"))
	k, err := kernel.Installed(home)
	if err != nil {
		return ground{}, err
	}
	// A home of its own: the initramfs of a test is nothing to keep beside the real one.
	dir, err := os.MkdirTemp("", "aegis-ch-test-")
	if err != nil {
		return ground{}, err
	}
	scratch = dir
	own := paths.Home(dir)
	if err := own.Create(); err != nil {
		return ground{}, err
	}
	for _, name := range []string{"kernel.json", k.Version} {
		if err := os.Symlink(filepath.Join(home.Kernel(), name), filepath.Join(own.Kernel(), name)); err != nil {
			return ground{}, err
		}
	}
	init := filepath.Join(dir, "init")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", init, "github.com/xfeldman/aegisvm/internal/vmm/vmmtest/guestinit")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return ground{}, err
	}
	initrd, err := kernel.EnsureInitrd(context.Background(), own, init)
	return ground{kernel: k.Image, initrd: initrd}, err
})

// realDriver opens the driver on this host, of which the first trial may boot a kernel.
var realDriver = sync.OnceValues(func() (*Driver, error) {
	if _, err := Find("", ""); err != nil { // before anything is built for it
		return nil, err
	}
	g, err := testGround()
	if err != nil {
		return nil, err
	}
	// The trial's kernel says much over a serial port, which takes emulated KVM too long.
	return Open(context.Background(), Options{Kernel: g.kernel, Trust: os.Getenv("AEGIS_TEST_ACCEL") == "kvm"})
})

// requireKVM returns what VMs boot, and a driver. Without the VMM or working KVM a test is
// skipped; in the KVM lab, which says that it is about this driver, it fails.
func requireKVM(t *testing.T) (ground, *Driver) {
	t.Helper()
	d, err := realDriver()
	if err != nil {
		if os.Getenv("AEGIS_TEST_VMM") == driverName {
			t.Fatalf("this VMM is required: %v", err)
		}
		t.Skipf("no VMs on this VMM here: %v", err)
	}
	g, _ := testGround() // it is there
	copied := &Driver{binary: d.binary, version: d.version, why: d.why, account: d.account, landlock: d.landlock, log: d.log, answer: d.answer, platform: d.platform}
	return g, copied
}

func harness(t *testing.T) vmmtest.Harness {
	t.Helper()
	g, d := requireKVM(t)
	return vmmtest.Harness{
		Driver: d,
		NewSpec: func(t *testing.T) vmm.Spec {
			t.Helper()
			// Private, as the instances' folders are: VMMs have no right to enter it.
			dir := filepath.Join(t.TempDir(), "instance")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			return vmm.Spec{
				ID: "vm-" + filepath.Base(t.Name()), Dir: dir, Memory: 128 * size.MiB, VCPUs: 1,
				Kernel: g.kernel, Initrd: g.initrd, Network: true,
			}
		},
		Lose: func(t *testing.T, m vmm.Machine) vmm.Driver {
			t.Helper()
			m.(*Machine).Release()
			_, next := requireKVM(t)
			return next
		},
		Strike: func(t *testing.T, m vmm.Machine) {
			t.Helper()
			if err := m.(*Machine).proc.Kill(); err != nil {
				t.Fatal(err)
			}
		},
		Files:    true,
		Patience: 60 * time.Second,
	}
}

func TestConformance(t *testing.T) {
	requireKVM(t)
	vmmtest.Run(t, func(t *testing.T) vmmtest.Harness {
		t.Helper()
		return harness(t)
	})
}
