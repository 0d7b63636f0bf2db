package kernel

import (
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// modules makes a folder of modules. Each is given by its file below kernel/ and
// its .modinfo, items separated by semicolons.
func modules(t *testing.T, dir string, builtin []string, files map[string]string) {
	t.Helper()
	write := func(name string, data []byte) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("modules.builtin", []byte(strings.Join(builtin, "\n")+"\n"))
	for name, info := range files {
		data := elfFile(".modinfo", []byte(strings.ReplaceAll(info, ";", "\x00")+"\x00"), false)
		switch filepath.Ext(name) {
		case ".gz":
			data = compressed(t, data, func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) })
		case ".zst":
			data = compressed(t, data, func(w io.Writer) io.WriteCloser {
				z, err := zstd.NewWriter(w)
				if err != nil {
					t.Fatal(err)
				}
				return z
			})
		}
		write(filepath.Join("kernel", name), data)
	}
}

// standardBuiltin is what the kernel of standard has built in.
var standardBuiltin = []string{"kernel/fs/ext4/ext4.ko", "kernel/drivers/virtio/virtio_ring.ko"}

// standard is a folder of modules on which machines can run.
func standard(t *testing.T, dir string) {
	t.Helper()
	modules(t, dir, standardBuiltin, map[string]string{
		"drivers/virtio/virtio.ko": "license=GPL", "drivers/virtio/virtio_mmio.ko": "depends=virtio",
		"drivers/char/virtio_console.ko.zst": "depends=virtio",
		"drivers/net/virtio_net.ko":          "depends=net_failover,virtio", "net/failover.ko": "", "net/net_failover.ko": "depends=failover",
		"drivers/block/virtio_blk.ko": "depends=virtio", "drivers/char/hw_random/virtio-rng.ko": "depends=rng-core",
		"drivers/char/hw_random/rng-core.ko": "",
		"fs/erofs/erofs.ko.gz":               "depends=libcrc32c", "lib/libcrc32c.ko": "depends=;softdep=pre: crc32c crc32c-generic post: other",
		"crypto/crc32c_generic.ko": "alias=crc32c", "fs/overlayfs/overlay.ko": "depends=",
		"net/sunrpc/sunrpc.ko": "", "fs/lockd/lockd.ko": "depends=sunrpc,grace", "fs/nfs_common/grace.ko": "",
		"fs/nfs/nfs.ko": "depends=sunrpc,lockd,fscache", "fs/fscache/fscache.ko": "depends=netfs", "fs/netfs/netfs.ko": "",
		"fs/nfs/nfsv3.ko": "depends=nfs,sunrpc", "drivers/gpu/unwanted.ko": "depends=missing",
	})
}

func TestResolve(t *testing.T) {
	dir := t.TempDir()
	standard(t, dir)
	c, err := readCatalog(dir)
	if err != nil {
		t.Fatal(err)
	}
	sets, err := c.resolve(moduleSets)
	if err != nil {
		t.Fatal(err)
	}
	for set, want := range map[string]string{
		"early":     "virtio virtio_mmio virtio_console failover net_failover virtio_net virtio_blk",
		"root":      "crc32c_generic libcrc32c erofs overlay rng_core virtio_rng",
		"workspace": "sunrpc grace lockd netfs fscache nfs nfsv3",
	} {
		var got []string
		for _, m := range sets[set] {
			got = append(got, m.name)
			if !strings.HasPrefix(string(m.data), "\x7fELF") {
				t.Errorf("%s is not uncompressed", m.name)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("set %s: %v\nwant %s", set, got, want)
		}
	}
}

// TestExtraModules: they load with the root's, with what they need, and are not optional.
func TestExtraModules(t *testing.T) {
	dir := t.TempDir()
	standard(t, dir)
	if err := check(dir, []string{"9p"}); err == nil {
		t.Error("an extra module is missing, and that is no error")
	}
	modules(t, dir, standardBuiltin, map[string]string{"fs/9p/9p.ko": "depends=9pnet", "net/9p/9pnet.ko": ""})
	c, err := readCatalog(dir)
	if err != nil {
		t.Fatal(err)
	}
	sets, err := c.resolve(withExtra([]string{"9p"}))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range sets["root"] {
		got = append(got, m.name)
	}
	if n := len(got); n < 2 || got[n-2] != "9pnet" || got[n-1] != "9p" {
		t.Errorf("the root's modules are %v", got)
	}
	if sets, err = c.resolve(moduleSets); err != nil || len(sets["root"]) != len(got)-2 {
		t.Errorf("without extra ones the root has %d modules of %d, %v", len(sets["root"]), len(got), err)
	}
}

func TestResolveMissing(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"the module":    {"a.ko": ""},
		"a dependency":  {"wanted.ko": "depends=a,missing"},
		"no module":     {"wanted.ko.txt": ""},
		"not an object": {"wanted.ko.xz": ""},
	} {
		dir := t.TempDir()
		modules(t, dir, nil, files)
		c, err := readCatalog(dir)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.resolve([]moduleSet{{"s", []module{{"wanted", true}}}}); err == nil {
			t.Errorf("%s is missing, and that is no error", name)
		}
	}
}

func TestResolveCircle(t *testing.T) {
	dir := t.TempDir()
	modules(t, dir, nil, map[string]string{"a.ko": "depends=b", "b.ko": "softdep=pre: a"})
	c, err := readCatalog(dir)
	if err != nil {
		t.Fatal(err)
	}
	sets, err := c.resolve([]moduleSet{{"s", []module{{"a", true}, {"b", true}}}})
	if err != nil || len(sets["s"]) != 2 || sets["s"][0].name != "b" {
		t.Errorf("got %d modules, %v", len(sets["s"]), err)
	}
}

func TestSoftPre(t *testing.T) {
	for in, want := range map[string][]string{
		"pre: a b post: c": {"a", "b"}, "post: c pre: d": {"d"}, "": nil, "a": nil,
	} {
		if got := softPre(in); !slices.Equal(got, want) {
			t.Errorf("softPre(%q) = %v, want %v", in, got, want)
		}
	}
}

func FuzzParseModule(f *testing.F) {
	f.Add(elfFile(".modinfo", []byte("depends=a,b\x00softdep=pre: c\x00"), false))
	f.Fuzz(func(_ *testing.T, data []byte) {
		_, _ = parseModule(data) // must return
		_, _ = extract(data, runtime.GOARCH)
	})
}
