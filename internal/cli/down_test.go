package cli

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/xfeldman/aegisvm/internal/paths"
)

// TestAbandoned tells VMs that a dead daemon has left from what is left of stopped ones.
func TestAbandoned(t *testing.T) {
	dir, err := os.MkdirTemp("", "a[b") //nolint:usetesting // a socket's path is short, and a home's name anything
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	home := paths.Home(dir)
	o := &downOptions{app: &app{home: home}}
	if o.abandoned() {
		t.Error("an empty home has VMs")
	}
	vm := filepath.Join(home.Instance("inst-1"), "vmm")
	if err := os.MkdirAll(vm, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(vm, "vmm.log"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if o.abandoned() {
		t.Error("a log is a VM")
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(vm, "qmp")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	if !o.abandoned() {
		t.Error("a socket is no VM")
	}
}
