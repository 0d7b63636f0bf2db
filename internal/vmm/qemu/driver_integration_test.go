//go:build integration

package qemu

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
	dir, err := os.MkdirTemp("", "aegis-qemu-test-")
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

var scratch string

func TestMain(m *testing.M) {
	code := m.Run()
	if scratch != "" {
		_ = os.RemoveAll(scratch)
	}
	os.Exit(code)
}

// requireVM returns what VMs boot. Without it a test is skipped, or fails where
// VMs are required.
func requireVM(t *testing.T) ground {
	t.Helper()
	g, err := testGround()
	if err != nil {
		if os.Getenv("AEGIS_REQUIRE_VM") == "1" {
			t.Fatalf("VMs are required: %v", err)
		}
		t.Skipf("no VMs here: %v", err)
	}
	return g
}

func openDriver(t *testing.T, o Options) *Driver {
	t.Helper()
	if o.Accel == "" {
		o.Accel = TCG
	}
	d, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func newSpec(t *testing.T, g ground) vmm.Spec {
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
}

func harness(t *testing.T, g ground) vmmtest.Harness {
	d := openDriver(t, Options{})
	return vmmtest.Harness{
		Driver:  d,
		NewSpec: func(t *testing.T) vmm.Spec { return newSpec(t, g) },
		Lose: func(t *testing.T, m vmm.Machine) vmm.Driver {
			m.(*Machine).Release()
			return openDriver(t, Options{})
		},
		Strike: func(t *testing.T, m vmm.Machine) {
			u, err := m.Usage()
			if err != nil {
				t.Fatal(err)
			}
			p, err := os.FindProcess(u.PID)
			if err != nil {
				t.Fatal(err)
			}
			_ = p.Kill()
			_ = p.Release()
		},
		Files:    true,
		Patience: 60 * time.Second,
	}
}

func TestConformance(t *testing.T) {
	g := requireVM(t)
	vmmtest.Run(t, func(t *testing.T) vmmtest.Harness { return harness(t, g) })
}

func TestProbe(t *testing.T) {
	g := requireVM(t)
	kvm, err := os.OpenFile(kvmDevice, os.O_RDWR, 0)
	if err != nil {
		t.Logf("no KVM to try: %v", err)
	}
	_ = kvm.Close()
	verdicts := filepath.Join(t.TempDir(), "verdicts")
	var took [2]time.Duration
	var info [2]vmm.Info
	for i := range took {
		begin := time.Now()
		d := openDriver(t, Options{Accel: Auto, Kernel: g.kernel, Verdicts: verdicts})
		took[i], info[i] = time.Since(begin), d.Info()
	}
	t.Logf("%v, then %v: %+v", took[0], took[1], info[0])
	if info[0] != info[1] {
		t.Errorf("first %+v, then %+v", info[0], info[1])
	}
	if limit := firstWord + lastWord + killTimeout; took[0] > limit {
		t.Errorf("the trial took %v, more than %v", took[0], limit)
	}
	if took[1] > 2*time.Second {
		t.Errorf("a verdict that is known took %v", took[1])
	}
}

// TestTrial makes the trial itself as this user, who may have rights on /dev/kvm
// that the VMMs' account has not. Whatever this host's KVM is, the trial ends.
func TestTrial(t *testing.T) {
	g := requireVM(t)
	d := openDriver(t, Options{})
	d.account = nil
	begin := time.Now()
	v, err := d.tryKVM(t.Context(), g.kernel)
	t.Logf("%+v, %v after %v", v, err, time.Since(begin))
	if err != nil || v.Why == "" {
		t.Error("no verdict")
	}
}
