package cloudhypervisor

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/qcow2"
)

func TestHand(t *testing.T) {
	for _, ll := range []bool{true, false} {
		for _, layered := range []bool{false, true} {
			d := &Driver{binary: "/tmp/w/ch/cloud-hypervisor", version: Version{53, 0}, landlock: ll, answer: adoptTimeout}
			raw := filepath.Join(t.TempDir(), "raw")
			os.WriteFile(raw, nil, 0o600)
			os.Truncate(raw, 8<<20)
			n := 0
			spec := func() vmm.Spec {
				dir := filepath.Join(t.TempDir(), "i")
				os.Mkdir(dir, 0o700)
				base := filepath.Join(t.TempDir(), "base")
				os.WriteFile(base, make([]byte, 1<<20), 0o600)
				n++
				disk := vmm.Disk{Name: "disk", Path: raw + string(rune('a'+n)), Format: vmm.Raw}
				os.WriteFile(disk.Path, nil, 0o600)
				os.Truncate(disk.Path, int64(8+n)<<20)
				if layered {
					ov := filepath.Join(t.TempDir(), "ov")
					if err := qcow2.Create(ov, 8<<20, vmm.Layer{Path: "base of ov", Format: vmm.Raw}); err != nil {
						t.Fatal(err)
					}
					disk = vmm.Disk{Name: "disk", Path: ov, Format: vmm.QCOW2, Backing: []vmm.Layer{{Path: raw, Format: vmm.Raw}}}
				}
				return vmm.Spec{ID: "x", Dir: dir, Memory: 128 * size.MiB, VCPUs: 1, Network: true,
					Kernel: "/tmp/w/clean/.aegis/cache/kernel/6.1.0-56-cloud-amd64/vmlinux",
					Disks:  []vmm.Disk{{Name: "base", Path: base, Format: vmm.Raw, ReadOnly: true}, disk},
				}
			}
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			s := spec()
			mm, err := d.Start(ctx, s, vmm.Boot{})
			must(err)
			must(mm.Pause(ctx))
			save := func(m vmm.Machine) (vmm.Saved, vmm.Memory) {
				t.Helper()
				dir := t.TempDir()
				begin := time.Now()
				sv, mem, err := m.(*Machine).Save(ctx, vmm.Dest{Dir: dir})
				if err != nil {
					b, _ := os.ReadFile(filepath.Join(m.(*Machine).folder.Path, "vmm.log"))
					t.Fatal(err, string(b))
				}
				took := time.Since(begin)
				must(m.Kill(ctx))
				sv.Memory, err = mem.Store(ctx, filepath.Join(dir, "memory"))
				must(err)
				t.Log(took, sv.State.Size, sv.Memory.Size, sv.Identity, inTmpfs(mem.(*memory).file))
				return sv, mem
			}
			sv, mem := save(mm)
			start := func(r vmm.Restore) vmm.Machine {
				t.Helper()
				begin := time.Now()
				sp := spec()
				m, err := d.Start(ctx, sp, r)
				if err != nil {
					b, _ := os.ReadFile(filepath.Join(sp.Dir, "vmm.log"))
					t.Fatal(err, string(b))
				}
				t.Log("restored", time.Since(begin))
				must(m.Resume(ctx))
				must(m.Pause(ctx))
				return m
			}
			m := start(vmm.Restore{Saved: sv})
			sv, mem = save(m)
			m = start(vmm.Restore{Saved: sv, Memory: mem, Own: true})
			sv, mem = save(m)
			m = start(vmm.Restore{Saved: sv, Memory: mem})
			u, _ := m.Usage()
			t.Log(u)
			sv, mem = save(m)
			m = start(vmm.Restore{Saved: sv, Memory: mem})
			m.(*Machine).Release()
			a, err := d.Adopt(ctx, m.(*Machine).folder.Path)
			must(err)
			t.Log(a.Paused(ctx))
			must(a.Kill(ctx))
		}
	}
}
