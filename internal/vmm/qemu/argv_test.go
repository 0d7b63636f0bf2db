package qemu

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

var update = flag.Bool("update", false, "rewrite golden files")

// golden compares got with a file under testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s has changed: saved machines of the version before will not start.\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}

func sample(arch string, accel Accel) *recipe {
	return &recipe{
		Arch: arch, Accel: accel, ID: "inst-1,x", Memory: 512*size.MiB - 1, VCPUs: 2,
		Cmdline: "aegis.magic=00", TSCKHz: 2_000_000,
		Network: true,
		Disks: []diskFile{
			{Name: "base", ReadOnly: true, Layers: []layerFile{{vmm.Raw, 12}}},
			{Name: "disk", Layers: []layerFile{{vmm.QCOW2, 13}, {vmm.QCOW2, 14}, {vmm.Raw, 15}}},
			{Name: "more", Layers: []layerFile{{vmm.Raw, 16}}},
		},
		Kernel: 6, Initrd: 7, RAM: 8, Console: 4, QMP: 9, Ctl: 10, Net: 11,
	}
}

func TestArgv(t *testing.T) {
	clone := sample("amd64", TCG)
	clone.Restore, clone.Clone, clone.Kernel, clone.Initrd = true, true, 0, 0
	for _, r := range []*recipe{sample("amd64", TCG), sample("amd64", KVM), sample("arm64", TCG), sample("arm64", KVM), clone} {
		name := r.Arch + "-" + string(r.Accel)
		if r.Clone {
			name += "-clone"
		}
		t.Run(name, func(t *testing.T) {
			var b strings.Builder
			for _, a := range r.argv() {
				sep := "\n"
				if !strings.HasPrefix(a, "-") {
					sep = " "
				}
				b.WriteString(sep + a)
			}
			b.WriteString("\n\nidentity: " + identity(Version{7, 2, 22}, r.shape()) + "\n")
			golden(t, "argv-"+name+".txt", strings.TrimPrefix(b.String(), "\n"))
		})
	}
}

func TestArgvWithout(t *testing.T) {
	r := sample("amd64", TCG)
	r.Network, r.Initrd, r.TSCKHz, r.VCPUs = false, 0, 0, 0
	got := strings.Join(r.argv(), " ")
	for _, no := range []string{"netdev", "virtio-net", "-initrd", "tsc_early_khz"} {
		if strings.Contains(got, no) {
			t.Errorf("%s in %s", no, got)
		}
	}
	if !strings.Contains(got, "-smp 1 ") {
		t.Errorf("no vCPU in %s", got)
	}
}

func TestIdentityIsAboutShape(t *testing.T) {
	of := func(r *recipe) string { return identity(Version{7, 2, 22}, r.shape()) }
	base := of(sample("amd64", TCG))
	same := sample("amd64", TCG)
	same.ID, same.Cmdline, same.Kernel, same.RAM, same.Net, same.QMP = "other", "x", 99, 98, 97, 96
	same.Restore, same.Clone, same.TSCKHz = true, true, 2_000_500
	same.Disks[1].Layers = []layerFile{{vmm.Raw, 95}}
	if got := of(same); !fits(got, base) || !fits(base, got) {
		t.Errorf("%q does not fit %q", got, base)
	}
	for what, change := range map[string]func(*recipe){
		"memory":    func(r *recipe) { r.Memory *= 2 },
		"vCPUs":     func(r *recipe) { r.VCPUs++ },
		"net":       func(r *recipe) { r.Network = false },
		"disk":      func(r *recipe) { r.Disks = r.Disks[:1] },
		"read-only": func(r *recipe) { r.Disks[1].ReadOnly = true },
		"accel":     func(r *recipe) { r.Accel = KVM },
		"arch":      func(r *recipe) { r.Arch = "arm64" },
		"counter":   func(r *recipe) { r.TSCKHz = 2_003_000 },
		"no count":  func(r *recipe) { r.TSCKHz = 0 },
	} {
		r := sample("amd64", TCG)
		change(r)
		if fits(of(r), base) || fits(base, of(r)) {
			t.Errorf("another %s is the same machine", what)
		}
	}
	kvm := sample("amd64", KVM)
	kvm.HostCPU = "0123"
	if fits(of(kvm), of(sample("amd64", KVM))) {
		t.Error("another CPU is the same machine")
	}
	if is := identity(Version{7, 2, 1}, sample("amd64", TCG).shape()); !fits(is, base) {
		t.Error("a patch is another QEMU")
	}
	if fits(identity(Version{8, 2, 22}, sample("amd64", TCG).shape()), base) {
		t.Error("another QEMU is the same machine")
	}
	if got := identity(Version{7, 2, 0}, shapeIn(base)); got != base {
		t.Errorf("the shape in %q makes %q", base, got)
	}
}
