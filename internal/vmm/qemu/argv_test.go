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
		Disks: []diskFile{
			{Name: "base", Format: vmm.Raw, ReadOnly: true, FD: 12},
			{Name: "disk", Format: vmm.QCOW2, FD: 13},
		},
		Kernel: 6, Initrd: 7, RAM: 8, Console: 4, QMP: 9, Ctl: 10, Net: 11,
	}
}

func TestArgv(t *testing.T) {
	for _, r := range []*recipe{sample("amd64", TCG), sample("amd64", KVM), sample("arm64", TCG), sample("arm64", KVM)} {
		t.Run(r.Arch+"-"+string(r.Accel), func(t *testing.T) {
			var b strings.Builder
			for _, a := range r.argv() {
				sep := "\n"
				if !strings.HasPrefix(a, "-") {
					sep = " "
				}
				b.WriteString(sep + a)
			}
			b.WriteString("\n\nidentity: " + r.identity(Version{7, 2, 22}) + "\n")
			golden(t, "argv-"+r.Arch+"-"+string(r.Accel)+".txt", strings.TrimPrefix(b.String(), "\n"))
		})
	}
}

func TestArgvWithout(t *testing.T) {
	r := sample("amd64", TCG)
	r.Net, r.Initrd, r.TSCKHz, r.VCPUs = 0, 0, 0, 0
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
	base := sample("amd64", TCG).identity(Version{7, 2, 22})
	same := sample("amd64", TCG)
	same.ID, same.Cmdline, same.Kernel, same.TSCKHz = "other", "x", 99, 1
	if got := same.identity(Version{7, 2, 1}); got != base {
		t.Errorf("%q is another than %q", got, base)
	}
	for what, change := range map[string]func(*recipe){
		"memory": func(r *recipe) { r.Memory *= 2 },
		"vCPUs":  func(r *recipe) { r.VCPUs++ },
		"net":    func(r *recipe) { r.Net = 0 },
		"disk":   func(r *recipe) { r.Disks = r.Disks[:1] },
		"accel":  func(r *recipe) { r.Accel = KVM },
		"arch":   func(r *recipe) { r.Arch = "arm64" },
	} {
		r := sample("amd64", TCG)
		change(r)
		if r.identity(Version{7, 2, 22}) == base {
			t.Errorf("another %s is the same machine", what)
		}
	}
	if sample("amd64", TCG).identity(Version{8, 2, 22}) == base {
		t.Error("another QEMU is the same machine")
	}
}
