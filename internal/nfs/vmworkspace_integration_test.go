//go:build integration

package nfs_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xfeldman/aegisvm/internal/paths"
	"github.com/xfeldman/aegisvm/internal/workspace"
)

// TestVMWorkspace joins all that makes a workspace, as the daemon does: the store, the
// server, the network and PID 1, over two daemons.
func TestVMWorkspace(t *testing.T) {
	const id = "inst-0123"
	home := paths.Home(t.TempDir())
	if err := home.Create(); err != nil {
		t.Fatal(err)
	}
	host := t.TempDir()
	if err := os.WriteFile(filepath.Join(host, "given"), []byte("given\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	store := workspace.New(home, testLog(t))
	spec := workspace.Spec{Mounts: []workspace.Mount{
		{Source: host, Target: "/srv/given", ReadOnly: true}, {Source: "data", Target: "/data"},
	}}
	v := startVM(t)
	var ws *workspace.Workspace
	var served chan error
	begin := func(life workspace.Life) {
		t.Helper()
		var err error
		if ws, err = store.Open(id, spec, life); err != nil {
			t.Fatal(err)
		}
		ln, err := v.network.Listen(workspace.Port)
		if err != nil {
			t.Fatal(err)
		}
		served = make(chan error, 1)
		go func(ws *workspace.Workspace) { served <- ws.Serve(ln) }(ws)
		if err := v.link.Mount(t.Context(), ws.Mount()); err != nil {
			t.Fatal(err)
		}
	}
	end := func() {
		t.Helper()
		if err := ws.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	}
	begin(workspace.Begins)
	v.must(t, "cat /srv/given/given; ! touch /srv/given/x 2>/dev/null; echo mine > own; echo shared > /data/shared")
	if err := ws.Write("sub/from-host", strings.NewReader("hello")); err != nil {
		t.Fatal(err)
	}
	if got := v.must(t, "cat sub/from-host; stat -c %u sub"); got != "hello0\n" {
		t.Errorf("%q", got)
	}
	if b, err := ws.Read("own"); err != nil || string(b) != "mine\n" {
		t.Errorf("%q, %v", b, err)
	}
	end()
	_ = v.network.Close()
	v.attach(t)
	begin(workspace.GoesOn)
	v.must(t, "echo more >> own; cat /srv/given/given /data/shared; ln -s /etc/passwd link")
	if _, err := ws.Read("link"); err == nil {
		t.Error("a link of the guest's leads the host astray")
	}
	end()
	for path, want := range map[string]string{home.Instance(id) + "/workspace/own": "mine\nmore\n", home.Workspace("data") + "/shared": "shared\n"} {
		if b, err := os.ReadFile(path); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", path, b, err)
		}
	}
}
