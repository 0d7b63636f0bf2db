//go:build integration

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestCgroups runs the driver's own test of cgroups in a VM, where they can be made.
func TestCgroups(t *testing.T) {
	h := newHost(t)
	binary := filepath.Join(t.TempDir(), "qemu.test")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", binary, "../../internal/vmm/qemu")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	h.ok("instance", "start", "--name", "box", "--pause-after", "0", "--", "sleep", "1000")
	h.ok("cp", binary, "box:/tmp/qemu.test")
	r := h.try("exec", "box", "--", "/tmp/qemu.test", "-test.run", "^TestCgroups$", "-test.v")
	if r.status != 0 || !strings.Contains(r.stdout, "--- PASS: TestCgroups") {
		t.Errorf("status %d\n%s%s", r.status, r.stdout, r.stderr)
	}
	h.ok("instance", "delete", "box")
}
