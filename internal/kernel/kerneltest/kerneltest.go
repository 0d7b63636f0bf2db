// Package kerneltest puts a kernel into a home for tests that start no real VM.
package kerneltest

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/xfeldman/aegisvm/internal/paths"
)

// Version is the version of the kernel that Install installs.
const Version = "6.1.0-test"

// Install makes the home if need be, and a kernel in it that boots nowhere but
// passes for one. It has all modules built in.
func Install(tb testing.TB, home paths.Home) {
	tb.Helper()
	if err := home.Create(); err != nil {
		tb.Fatal(err)
	}
	var builtin strings.Builder
	for _, name := range []string{
		"virtio_ring", "virtio", "virtio_mmio", "virtio_console", "virtio_net", "virtio_blk",
		"erofs", "overlay", "ext4", "sunrpc", "lockd", "nfs", "nfsv3",
	} {
		_, _ = fmt.Fprintf(&builtin, "kernel/%s.ko\n", name) // never fails
	}
	image := "not really a kernel"
	for name, text := range map[string]string{
		Version + "/vmlinux":                 image,
		Version + "/modules/modules.builtin": builtin.String(),
		"kernel.json": fmt.Sprintf(`{"version":%q,"arch":%q,"source":"a test","size":%d,"digest":"sha256:test"}`,
			Version, runtime.GOARCH, len(image)),
	} {
		path := filepath.Join(home.Kernel(), name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
}
