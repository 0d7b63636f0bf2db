//go:build integration

package libkrun

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/internal/kernel"
	"github.com/xfeldman/aegisvm/internal/paths"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/libkrun/recipe"
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
	own := paths.Home(filepath.Join(programs, "home"))
	if err := own.Create(); err != nil {
		return ground{}, err
	}
	for _, name := range []string{"kernel.json", k.Version} {
		if err := os.Symlink(filepath.Join(home.Kernel(), name), filepath.Join(own.Kernel(), name)); err != nil {
			return ground{}, err
		}
	}
	init := filepath.Join(programs, "init")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", init, "github.com/xfeldman/aegisvm/internal/vmm/vmmtest/guestinit")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return ground{}, err
	}
	initrd, err := kernel.EnsureInitrd(context.Background(), own, init)
	return ground{kernel: k.Image, initrd: initrd}, err
})

// openReal opens the driver on the host's libkrun. Few hosts have one, and KVM: without, the
// test is skipped, but where libkrun is what is tested.
func openReal(t *testing.T, o Options) *Driver {
	t.Helper()
	o.Worker = filepath.Join(os.Getenv("AEGIS_TEST_BIN"), recipe.Program)
	o.Library = os.Getenv("AEGIS_LIBKRUN")
	d, err := Open(t.Context(), o)
	if err != nil && os.Getenv("AEGIS_TEST_VMM") == driverName {
		t.Fatalf("libkrun is required: %v", err)
	} else if err != nil {
		t.Skipf("no libkrun here, or no KVM for it; the KVM lab has both: %v", err)
	}
	return d
}

func realGround(t *testing.T) ground {
	t.Helper()
	openReal(t, Options{})
	g, err := testGround()
	if err != nil {
		t.Fatalf("what guests boot: %v", err)
	}
	return g
}

func realSpec(t *testing.T, g ground) vmm.Spec {
	t.Helper()
	// Private, as the instances' folders are: VMs have no right to enter it.
	dir := filepath.Join(t.TempDir(), "instance")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return vmm.Spec{
		ID: "vm-" + filepath.Base(t.Name()), Dir: dir, Memory: 128 * size.MiB, VCPUs: 1,
		Kernel: g.kernel, Initrd: g.initrd, Network: true,
	}
}

// TestProbe tries KVM, and remembers what came of it.
func TestProbe(t *testing.T) {
	g := realGround(t)
	verdicts := filepath.Join(t.TempDir(), "verdicts")
	var took [2]time.Duration
	var info [2]vmm.Info
	for i := range took {
		begin := time.Now()
		d := openReal(t, Options{Kernel: g.kernel, Verdicts: verdicts})
		took[i], info[i] = time.Since(begin), d.Info()
	}
	t.Logf("%v, then %v: %+v", took[0], took[1], info[0])
	if info[0] != info[1] {
		t.Errorf("first %+v, then %+v", info[0], info[1])
	}
}

// TestDisks shows that disks come in the order in which the command line names them.
func TestDisks(t *testing.T) {
	g := realGround(t)
	spec := realSpec(t, g)
	for i, d := range []vmm.Disk{{Name: "base", ReadOnly: true}, {Name: "disk"}, {Name: "tools", ReadOnly: true}} {
		d.Path, d.Format = filepath.Join(t.TempDir(), d.Name), vmm.Raw
		if err := os.WriteFile(d.Path, make([]byte, (i+1)<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		spec.Disks = append(spec.Disks, d)
	}
	m, _ := start(t, openReal(t, Options{}), spec)
	for console := ""; !strings.Contains(console, "guest is up"); console = m.console.Tail() {
		if err := m.gone(); err != nil {
			t.Fatal(err)
		}
		<-time.After(50 * time.Millisecond)
	}
	var got []string
	for _, line := range regexp.MustCompile(`disk .*: (\d+ sectors, read-only \d)`).FindAllStringSubmatch(m.console.Tail(), -1) {
		got = append(got, line[1])
	}
	want := "2048 sectors, read-only 1; 4096 sectors, read-only 0; 6144 sectors, read-only 1"
	if strings.Join(got, "; ") != want {
		t.Errorf("disks %q, want %q", got, want)
	}
}

// TestRights looks at what a worker may still do once its guest runs.
func TestRights(t *testing.T) {
	g := realGround(t)
	d := openReal(t, Options{})
	if d.account == nil {
		t.Skip("the daemon has no rights to give up here")
	}
	m, pid := start(t, d, realSpec(t, g))
	<-m.console.Begun()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	id := strconv.FormatUint(uint64(d.account.UID), 10)
	for _, want := range []string{"Uid:\t" + strings.Repeat(id+"\t", 3) + id + "\n", "CapEff:\t0000000000000000\n", "CapPrm:\t0000000000000000\n"} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %q in\n%s", want, b)
		}
	}
}

func TestConformance(t *testing.T) {
	g := realGround(t)
	vmmtest.Run(t, func(t *testing.T) vmmtest.Harness {
		t.Helper()
		return vmmtest.Harness{
			Driver: openReal(t, Options{}),
			NewSpec: func(t *testing.T) vmm.Spec {
				t.Helper()
				return realSpec(t, g)
			},
			Lose: func(t *testing.T, m vmm.Machine) vmm.Driver {
				t.Helper()
				m.(*Machine).Release()
				return openReal(t, Options{})
			},
			Strike:   strike,
			Files:    true,
			Keeps:    "aegis-copy",
			Patience: 60 * time.Second,
		}
	})
}
