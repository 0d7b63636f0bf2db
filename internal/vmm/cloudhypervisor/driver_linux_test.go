package cloudhypervisor

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/host"
	"github.com/xfeldman/aegisvm/internal/vmm/vmmtest"
)

// playedDriver returns a driver whose VMM is this test binary.
func playedDriver(t *testing.T, account *host.Account) *Driver {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return &Driver{binary: self, version: Version{53, 0}, account: account, answer: adoptTimeout, log: discard, platform: "test", why: "a test"}
}

// playedSpec returns the recipe of a machine that a player can play.
func playedSpec(t *testing.T) vmm.Spec {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "instance")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	spec := vmm.Spec{
		ID: "played", Dir: dir, Memory: 16 * size.MiB, VCPUs: 1, Network: true,
		Kernel: filepath.Join(t.TempDir(), "kernel"), Initrd: filepath.Join(t.TempDir(), "initrd"),
	}
	for _, path := range []string{spec.Kernel, spec.Initrd} {
		if err := os.WriteFile(path, kernelImage(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return spec
}

// kernelImage returns the least that passes for a kernel.
func kernelImage() []byte {
	b := make([]byte, 64)
	if runtime.GOARCH == "arm64" {
		copy(b[56:], "ARM\x64")
		return b
	}
	copy(b, "\x7fELF\x02\x01\x01")
	b[16], b[18], b[20] = 2, 62, 1 // an executable for x86-64
	b[52], b[54], b[58] = 64, 56, 64
	return b
}

func playedHarness(t *testing.T, account *host.Account) vmmtest.Harness {
	t.Helper()
	return vmmtest.Harness{
		Driver:  playedDriver(t, account),
		NewSpec: playedSpec,
		Lose: func(t *testing.T, m vmm.Machine) vmm.Driver {
			t.Helper()
			m.(*Machine).Release()
			return playedDriver(t, account)
		},
		Strike: func(t *testing.T, m vmm.Machine) {
			t.Helper()
			if err := m.(*Machine).proc.Kill(); err != nil {
				t.Fatal(err)
			}
		},
		Files:    true,
		Patience: 30 * time.Second,
	}
}

// TestContract runs the suite of drivers on a VMM that is played, once as this user and
// once, where it can be, as the account of VMMs.
func TestContract(t *testing.T) {
	vmmtest.Run(t, func(t *testing.T) vmmtest.Harness {
		t.Helper()
		return playedHarness(t, nil)
	})
}

// TestAccount runs a machine through what needs rights, as the account of VMMs.
func TestAccount(t *testing.T) {
	account, err := host.FindAccount("")
	if err != nil || account == nil {
		t.Skipf("VMMs run as this user here: %v", err)
	}
	d := playedDriver(t, account)
	m, err := d.Start(t.Context(), playedSpec(t), vmm.Boot{})
	if err != nil {
		t.Fatal(err)
	}
	if owner, err := os.ReadFile("/proc/" + itoa(m.(*Machine).proc.PID) + "/status"); err != nil || !strings.Contains(string(owner), "Uid:\t"+itoa(int(account.UID))) {
		t.Errorf("the VMM runs as\n%s, %v", owner, err)
	}
	if err := m.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	saved, mem, err := m.(*Machine).Save(t.Context(), vmm.Dest{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close() //nolint:errcheck // the test is about something else
	if err := m.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	clone, err := d.Start(t.Context(), playedSpec(t), vmm.Restore{Saved: saved, Memory: mem})
	if err != nil {
		t.Fatal(err)
	}
	if err := clone.Kill(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestRefused checks that what the VMM says reaches people, with a hint.
func TestRefused(t *testing.T) {
	spec := playedSpec(t)
	spec.Cmdline = "refuse-to-boot"
	_, err := playedDriver(t, nil).Start(t.Context(), spec, vmm.Boot{})
	if err == nil || !strings.Contains(err.Error(), "another machine uses a disk") || fault.HintOf(err) == "" || fault.KindOf(err) != fault.Conflict {
		t.Errorf("%v (hint %q)", err, fault.HintOf(err))
	}
	if left, _ := filepath.Glob(filepath.Join(spec.Dir, "*")); len(left) != 2 {
		t.Errorf("left: %v", left)
	}
}

// TestRequestsOutOfOrder checks that the player refuses what the document has not: else
// TestContract would show nothing.
func TestRequestsOutOfOrder(t *testing.T) {
	for what, ask := range map[string]func(*Machine) error{
		"a request that is not there": func(m *Machine) error { return m.api.put(t.Context(), "vm.explode", nil) },
		"a field that is not there":   func(m *Machine) error { return m.api.put(t.Context(), "vm.snapshot", restoreConfig{"file:///x"}) },
	} {
		m, err := playedDriver(t, nil).Start(t.Context(), playedSpec(t), vmm.Boot{})
		if err != nil {
			t.Fatal(err)
		}
		if err := ask(m.(*Machine)); err == nil {
			t.Errorf("%s: performed", what)
		}
		exit, err := m.Wait(t.Context())
		if err != nil || exit.Reason != vmm.Died || !strings.Contains(exit.Detail, "not in order") {
			t.Errorf("%s: %+v, %v", what, exit, err)
		}
	}
}

// TestAdoptUnrecorded adopts a VMM whose daemon died before it had written down which
// process it is.
func TestAdoptUnrecorded(t *testing.T) {
	d := playedDriver(t, nil)
	spec := playedSpec(t)
	m, err := d.Start(t.Context(), spec, vmm.Boot{})
	if err != nil {
		t.Fatal(err)
	}
	mach := m.(*Machine)
	if err := os.Truncate(filepath.Join(spec.Dir, "vmm.json"), 0); err != nil {
		t.Fatal(err)
	}
	if err := mach.folder.Begin(mach.model); err != nil {
		t.Fatal(err)
	}
	mach.Release()
	again, err := d.Adopt(t.Context(), spec.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := again.(*Machine); got.proc.PID != mach.proc.PID || got.model.Shape != mach.model.Shape {
		t.Errorf("process %d, not %d; model %+v", got.proc.PID, mach.proc.PID, got.model)
	}
	if err := again.Kill(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := d.Adopt(t.Context(), spec.Dir); !errors.Is(err, vmm.ErrEnded) {
		t.Errorf("adopt what has ended: %v", err)
	}
}
