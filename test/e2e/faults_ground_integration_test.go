//go:build integration

package e2e

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/xfeldman/aegisvm/api"
)

// TestFaultGround breaks what machines stand on. Each has a home of its own, and
// emulates: a kernel that is none says nothing about hardware virtualization.
func TestFaultGround(t *testing.T) {
	for _, f := range []struct {
		name   string
		damage func(h *host)
		mend   func(h *host) // what the message says to do; nil if that is beyond a test
	}{
		{"kernel missing", func(h *host) { remove(h.t, h.only("kernel/*/vmlinux")) }, (*host).setup},
		{"kernel garbage", func(h *host) { h.kernel(func([]byte) []byte { return bytes.Repeat([]byte("garbage\n"), 1<<16) }) }, func(h *host) {
			if err := os.RemoveAll(filepath.Dir(h.only("kernel/*/vmlinux"))); err != nil {
				h.t.Fatal(err)
			}
			h.setup()
		}},
		{"kernel cut off", func(h *host) {
			path := h.only("kernel/*/vmlinux")
			replace(h.t, path, load(h.t, path)[:1<<20])
		}, nil},
		{"kernel another program", func(h *host) {
			h.kernel(func([]byte) []byte { return load(h.t, filepath.Join(h.bin, "aegis-harness")) })
		}, nil},
		{"kernel that hangs", func(h *host) {
			h.kernel(func(image []byte) []byte { return hanging(h.t, image) })
			h.env = append(h.env, "AEGIS_BOOT_TIMEOUT=3s")
		}, nil},
		{"initramfs garbage", func(h *host) { h.initrd([]byte("garbage")) }, func(h *host) { h.removeAll("kernel/initrd-*") }},
		{"image missing", func(h *host) { remove(h.t, h.only("data/images/base.erofs")) }, nil},
		{"image cut off", func(h *host) {
			path := h.only("data/images/base.erofs")
			replace(h.t, path, load(h.t, path)[:1<<20])
		}, nil},
		{"image garbage", func(h *host) {
			path := h.only("data/images/base.erofs")
			replace(h.t, path, make([]byte, len(load(h.t, path))))
		}, func(h *host) {
			remove(h.t, h.only("data/images/base.json"))
			h.setup()
		}},
		{"disk template missing", func(h *host) { h.removeAll("data/images/disk-*") }, (*host).setup},
		{"harness that ends", func(h *host) { h.harness(load(h.t, filepath.Join(h.bin, "aegis"))) }, nil},
		{"harness garbage", func(h *host) { h.harness([]byte("garbage")) }, nil},
		{"harness missing", func(h *host) {
			h.harness(nil)
			remove(h.t, filepath.Join(h.bin, "aegis-harness"))
		}, nil},
	} {
		t.Run(f.name, func(t *testing.T) {
			h := newHome(t, "AEGIS_ACCEL=tcg", "AEGIS_TEMPLATES=off")
			f.damage(h)
			h.fails(strings.ReplaceAll(f.name, " ", "_"), 125, h.try("run", "--", "true"))
			if f.mend != nil {
				f.mend(h)
				h.works()
			}
		})
	}
}

// setup runs aegis setup, for which the tests have a cache.
func (h *host) setup() {
	h.t.Helper()
	if out, err := h.aegis("setup").CombinedOutput(); err != nil {
		h.t.Fatalf("aegis setup: %v\n%s", err, out)
	}
}

func load(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// removeAll removes the files of the home that match, of which there are some.
func (h *host) removeAll(pattern string) {
	h.t.Helper()
	found, err := filepath.Glob(filepath.Join(h.home, pattern))
	if err != nil || len(found) == 0 {
		h.t.Fatalf("%s: %v, %v", pattern, found, err)
	}
	for _, path := range found {
		remove(h.t, path)
	}
}

// kernel replaces the kernel's image, as if set-up had installed that.
func (h *host) kernel(change func([]byte) []byte) {
	h.t.Helper()
	path, about := h.only("kernel/*/vmlinux"), h.only("kernel/kernel.json")
	image := change(load(h.t, path))
	replace(h.t, path, image)
	var description map[string]any
	if err := json.Unmarshal(load(h.t, about), &description); err != nil {
		h.t.Fatal(err)
	}
	description["size"] = len(image)
	b, err := json.Marshal(description)
	if err != nil {
		h.t.Fatal(err)
	}
	replace(h.t, about, b)
}

// hanging returns a kernel that does nothing, from its first instruction on.
func hanging(t *testing.T, image []byte) []byte {
	t.Helper()
	image = bytes.Clone(image)
	if runtime.GOARCH == "arm64" {
		binary.LittleEndian.PutUint32(image, 0x14000000) // b .
		return image
	}
	f, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	// XEN_ELFNOTE_PHYS32_ENTRY: name and descriptor sizes, type 18, "Xen", the address.
	i := bytes.Index(image, []byte("\x12\x00\x00\x00Xen\x00"))
	if i < 0 {
		t.Fatal("the kernel has no PVH entry")
	}
	entry := uint64(binary.LittleEndian.Uint32(image[i+8:]))
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD && p.Paddr <= entry && entry < p.Paddr+p.Filesz {
			copy(image[p.Off+entry-p.Paddr:], "\xeb\xfe") // jmp .
			return image
		}
	}
	t.Fatal("the kernel's entry is nowhere")
	return nil
}

// initrd lets the daemon make its initramfs, and replaces that.
func (h *host) initrd(data []byte) {
	h.t.Helper()
	h.works()
	made, err := filepath.Glob(filepath.Join(h.home, "kernel", "initrd-*.img"))
	if err != nil || len(made) == 0 {
		h.t.Fatalf("no initramfs: %v", err)
	}
	for _, path := range made {
		replace(h.t, path, data)
	}
}

// harness gives the home programs of its own, with another PID 1 for guests.
func (h *host) harness(data []byte) {
	h.t.Helper()
	bin := h.t.TempDir()
	for _, name := range []string{"aegis", "aegisd"} {
		if err := os.WriteFile(filepath.Join(bin, name), load(h.t, filepath.Join(h.bin, name)), 0o755); err != nil {
			h.t.Fatal(err)
		}
	}
	h.bin = bin
	if err := os.WriteFile(filepath.Join(bin, "aegis-harness"), data, 0o755); err != nil {
		h.t.Fatal(err)
	}
}

// TestFaultDisk has too little room on the host's disk, from the start or all of a
// sudden.
func TestFaultDisk(t *testing.T) {
	t.Run("full at the start", func(t *testing.T) {
		h := newHome(t)
		mount(t, filepath.Join(h.home, "data", "instances"), "size=64m")
		h.up()
		h.fails("disk_full_at_start", 125, h.try("run", "--", "true"))
	})
	t.Run("fills under the guest", func(t *testing.T) {
		h := newHome(t)
		instances := filepath.Join(h.home, "data", "instances")
		mount(t, instances, "size=300m")
		h.up()
		r := h.background("run", "--", "sh", "-c", "echo ready; sleep 2;"+writeMuch)
		r.ready()
		fill(t, filepath.Join(instances, "filler"))
		got := r.wait()
		remove(t, filepath.Join(instances, "filler"))
		if got.stdout != "failed\n" {
			t.Errorf("stdout = %q", got.stdout)
		}
		h.fails("disk_fills", 3, got)
		h.works()
	})
}

// writeMuch is a program that writes to a disk which has become full on the host.
const writeMuch = "dd if=/dev/zero of=/big bs=1M count=64 conv=fsync 2>/dev/null || { echo failed; exit 3; }"

// fill writes a file until less than 32 MB are left where it is.
func fill(t *testing.T, path string) {
	t.Helper()
	var fs syscall.Statfs_t
	if err := syscall.Statfs(filepath.Dir(path), &fs); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, make([]byte, int64(fs.Bavail)*fs.Bsize-32<<20), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestFaultDiskOfInstance fills the host's disk under an instance that stays: who runs a
// command in it is told, and with room and a restart all is well again.
func TestFaultDiskOfInstance(t *testing.T) {
	h := newHome(t)
	instances := filepath.Join(h.home, "data", "instances")
	mount(t, instances, "size=300m")
	h.up()
	h.ok("instance", "start", "--name", "full", "--pause-after", "0", "--", "sh", "-c", "echo ready; exec sleep 100000")
	fill(t, filepath.Join(instances, "filler"))
	r := h.try("exec", "full", "--", "sh", "-c", writeMuch)
	if r.status != 3 || r.stdout != "failed\n" {
		t.Errorf("status %d, stdout %q", r.status, r.stdout)
	}
	h.golden("disk_fills_exec", r.stderr)
	if i := h.info("full"); i.State != api.StateRunning || !strings.Contains(i.Trouble, "disk was full") {
		t.Errorf("it is %s, in trouble: %q", i.State, i.Trouble)
	}
	if r := h.try("run", "--", "true"); r.status != 125 || !strings.Contains(r.stderr, "free some space") {
		t.Errorf("a run without room: %+v", r)
	}
	remove(t, filepath.Join(instances, "filler"))
	h.ok("instance", "restart", "full")
	if r := h.try("exec", "full", "--", "sh", "-c", "rm /big && echo well > /note && cat /note"); r.status != 0 || r.stdout != "well\n" || r.stderr != "" {
		t.Errorf("after the restart: %+v", r)
	}
	if out := h.ok("logs", "full"); !strings.HasPrefix(out, "ready\n") || !strings.Contains(out, "[system] the host's disk was full") {
		t.Errorf("logs: %q", out)
	}
	if i := h.info("full"); i.Trouble != "" {
		t.Errorf("still in trouble: %q", i.Trouble)
	}
	h.ok("instance", "delete", "full")
	h.clean()
}

// refused checks what is said of a home in which nothing can be.
func (h *host) refused(name string, r result) {
	h.t.Helper()
	if r.status != 125 {
		h.t.Errorf("status %d, want 125", r.status)
	}
	h.golden(name, r.stderr)
}

// TestFaultHome has a home that cannot be one, and one that should not matter.
func TestFaultHome(t *testing.T) {
	t.Run("not a folder", func(t *testing.T) {
		h := newHome(t).sub(t)
		h.home = "/dev/null/home"
		h.refused("home_not_a_folder", h.try("run", "--", "true"))
	})
	t.Run("read-only", func(t *testing.T) {
		h := newHome(t).sub(t)
		dir := filepath.Join(t.TempDir(), "ro")
		mount(t, dir, "size=1m")
		if err := syscall.Mount("aegis-test", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
		h.home = filepath.Join(dir, "home")
		h.refused("home_read_only", h.try("run", "--", "true"))
	})
	t.Run("long path", func(t *testing.T) {
		h := newHome(t)
		long := filepath.Join(filepath.Dir(h.home), strings.Repeat("a-long-name-", 15))
		if err := os.Rename(h.home, long); err != nil {
			t.Fatal(err)
		}
		h.home = long
		h.works()
		h.clean()
	})
}
