package cloudhypervisor

import (
	"strings"
	"syscall"
	"testing"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

func TestVersion(t *testing.T) {
	for out, want := range map[string]string{
		"cloud-hypervisor v53.0\nMigration Protocol Versions: 0\n": "53.0",
		"cloud-hypervisor v53.0-dirty":                             "53.0",
		"cloud-hypervisor v51.1":                                   "51.1",
		"v53.0":                                                    "53.0",
	} {
		if v, err := parseVersion(out); err != nil || v.String() != want {
			t.Errorf("%q: %v, %v", out, v, err)
		}
	}
	for _, out := range []string{"", "QEMU emulator version 7.2.22", "cloud-hypervisor v", "vx.y"} {
		if v, err := parseVersion(out); err == nil || fault.HintOf(err) == "" {
			t.Errorf("%q: %v, %v", out, v, err)
		}
	}
	for _, v := range []Version{{50, 9}, {0, 15}} {
		err := errTooOld(v)
		if !v.before(oldest) || !strings.Contains(err.Error(), v.String()) || !strings.Contains(err.Error(), "51.0") || fault.HintOf(err) == "" {
			t.Errorf("%v: %v", v, err)
		}
	}
	if (Version{51, 0}).before(oldest) || (Version{53, 0}).before(oldest) {
		t.Error("what is supported is too old")
	}
}

func TestExit(t *testing.T) {
	status := func(code int) *syscall.WaitStatus { s := syscall.WaitStatus(code << 8); return &s }
	killed := syscall.WaitStatus(syscall.SIGKILL)
	const panicked, restarted = "x\nKernel panic - not syncing: no root\n", "reboot: Restarting system\n"
	for name, c := range map[string]struct {
		ending ending
		want   vmm.ExitReason
		detail string
	}{
		"killed":                      {ending{killed: true, orderly: true}, vmm.Killed, ""},
		"off":                         {ending{orderly: true, status: status(0)}, vmm.PoweredOff, ""},
		"off, not our child":          {ending{orderly: true}, vmm.PoweredOff, ""},
		"panic":                       {ending{rebooted: true, status: &killed, console: panicked}, vmm.Panicked, "no root"},
		"reboot":                      {ending{rebooted: true, status: &killed, console: restarted}, vmm.PoweredOff, "rebooted"},
		"triple fault":                {ending{rebooted: true, status: &killed}, vmm.Panicked, "without a word"},
		"a guest that only says so":   {ending{status: &killed, console: panicked}, vmm.Died, "signal 9"},
		"off that only says panicked": {ending{orderly: true, status: status(0), console: panicked}, vmm.PoweredOff, ""},
		"failed":                      {ending{status: status(1), stderr: "Error: no\n  0: such thing\n"}, vmm.Died, "status 1: Error: no; 0: such thing"},
		"gone":                        {ending{}, vmm.Died, "is gone"},
	} {
		if got := c.ending.exit(); got.Reason != c.want || !strings.Contains(got.Detail, c.detail) || (c.detail == "") != (got.Detail == "") {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// TestShape checks what makes a saved machine another's.
func TestShape(t *testing.T) {
	base := recipe{Arch: "amd64", Memory: 512 * size.MiB, VCPUs: 1, HostCPU: "a", Network: true, Disks: []diskFile{{Name: "base", ReadOnly: true}, {Name: "disk"}}}
	same := base
	same.Cmdline, same.Clone, same.RAM, same.Landlock = "other", true, 9, true
	same.Disks = []diskFile{{Name: "base", ReadOnly: true, FD: 7}, {Name: "disk", Format: vmm.QCOW2, Layered: true, FD: 33, Size: size.GiB}}
	if base.shape() != same.shape() {
		t.Errorf("%q is not %q", base.shape(), same.shape())
	}
	for name, change := range map[string]func(*recipe){
		"memory":        func(r *recipe) { r.Memory = 256 * size.MiB },
		"CPUs":          func(r *recipe) { r.VCPUs = 2 },
		"host":          func(r *recipe) { r.HostCPU = "b" },
		"card":          func(r *recipe) { r.Network = false },
		"disks":         func(r *recipe) { r.Disks = r.Disks[:1] },
		"order":         func(r *recipe) { r.Disks = []diskFile{r.Disks[1], r.Disks[0]} },
		"what is which": func(r *recipe) { r.Disks = []diskFile{{Name: "base"}, {Name: "disk"}} },
	} {
		other := base
		change(&other)
		if other.shape() == base.shape() {
			t.Errorf("%s: the same shape", name)
		}
	}
}

// TestCommandLine checks that the guest is told how to meet the host.
func TestCommandLine(t *testing.T) {
	r := recipe{Arch: "amd64", Network: true, Cmdline: "aegis.magic=x"}
	line := " " + r.kernelCommandLine() + " "
	for _, want := range []string{" aegis.link=vsock ", " aegis.card=02:61:65:67:69:73 ", " console=ttyS0 ", " panic=-1 ", " aegis.magic=x "} {
		if !strings.Contains(line, want) {
			t.Errorf("%q is not in %q", want, line)
		}
	}
	r.Network = false
	if strings.Contains(r.kernelCommandLine(), "aegis.card") {
		t.Error("a machine without a card makes one")
	}
}
