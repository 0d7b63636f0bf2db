//go:build integration

package nfs_test

import (
	_ "embed"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/xfeldman/aegisvm/internal/guestproto"
)

//go:embed testdata/posix.py
var posixScript string

// TestPOSIXTable shows that the table is true of a file system of this host: what it
// says of the workspace is not made to fit.
func TestPOSIXTable(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be many users")
	}
	python, err := exec.LookPath("python3")
	if err != nil && os.Getenv("AEGIS_REQUIRE_VM") == "1" {
		t.Fatal(err)
	}
	if err != nil {
		t.Skip(err)
	}
	_, dir := program(t, false)
	out, err := exec.CommandContext(t.Context(), python, "-c", posixScript, dir).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestVMPOSIX runs the table in a guest, with a daemon that is root (or whoever runs
// this test), and with one that is an ordinary user.
func TestVMPOSIX(t *testing.T) {
	v := startVM(t)
	point := guestproto.MountPoint{Export: "/", Target: "/workspace"}
	exe, dir := program(t, false)
	r := v.relay(t, startExternal(t, exe, dir, "", false).addr)
	v.mount(t, point)
	t.Run("daemon", v.posix)
	v.must(t, "cd / && umount /workspace")
	exe, dir = program(t, true)
	r.to(startExternal(t, exe, dir, "", true).addr)
	v.mount(t, point)
	t.Run("ordinary daemon", v.posix)
}

func (v *vm) posix(t *testing.T) {
	out, status := v.start(t, "python3", "-c", posixScript, "/workspace", "nfs")()
	if status != 0 {
		t.Errorf("status %d\n%s", status, out)
	} else {
		t.Log(strings.TrimSpace(out))
	}
}
