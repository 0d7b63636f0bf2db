//go:build integration

package nfs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/guestlink"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/netstack"
	"github.com/xfeldman/aegisvm/internal/nfs"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/test/vmrig"
)

// vm is a booted machine with a network, and a server for its workspace.
type vm struct {
	t       testing.TB // whose end is the machine's
	machine vmm.Machine
	link    *guestlink.Link
	network *netstack.Network
	execs   atomic.Int32

	server *nfs.Server
	served chan error
}

func testLog(t testing.TB) *slog.Logger {
	t.Helper()
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// startVM boots a machine and greets its guest.
func startVM(t testing.TB) *vm {
	t.Helper()
	magic := guestproto.NewMagic()
	m := vmrig.Boot(t, testLog(t), vmrig.Recipe(t, magic))
	v := &vm{t: t, machine: m}
	v.attach(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var err error
	v.link, err = guestlink.Open(ctx, testLog(t), m, magic, guestproto.Hello{
		MinVersion: guestproto.MinVersion, Version: guestproto.Version,
		Identity: &guestproto.Identity{Instance: "inst-1", Hostname: "box"},
		Thaw:     &guestproto.Thaw{UnixNano: time.Now().UnixNano(), Entropy: make([]byte, 32)},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.link.Close() })
	return v
}

// attach gives the machine a new network.
func (v *vm) attach(t testing.TB) {
	t.Helper()
	n, err := netstack.New(netstack.Config{Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := v.machine.AttachNetwork(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n.Attach(conn)
	v.network = n
	v.t.Cleanup(func() { _ = n.Close() })
}

// serve puts a server behind the gateway's port.
func (v *vm) serve(t testing.TB, exports ...nfs.Export) {
	t.Helper()
	s, err := nfs.New(nfs.Options{Log: testLog(t), PrivilegedPorts: true}, exports...)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := v.network.Listen(2049)
	if err != nil {
		t.Fatal(err)
	}
	v.server, v.served = s, make(chan error, 1)
	go func(done chan error, ln net.Listener) { done <- s.Serve(ln) }(v.served, ln)
	v.t.Cleanup(func() { _ = s.Close() })
}

// stop ends the server in good order.
func (v *vm) stop(t testing.TB) {
	t.Helper()
	if err := v.server.Close(); err != nil {
		t.Error(err)
	}
	if err := <-v.served; err != nil {
		t.Error(err)
	}
}

func (v *vm) mount(t testing.TB, points ...guestproto.MountPoint) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := v.link.Mount(ctx, guestproto.Mount{Mounts: points}); err != nil {
		t.Fatal(err)
	}
}

// reconnect tells the guest that its server is another one.
func (v *vm) reconnect(t testing.TB, points ...guestproto.MountPoint) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := v.link.Mount(ctx, guestproto.Mount{Mounts: points, Reconnect: true}); err != nil {
		t.Fatal(err)
	}
}

// onWorkspace boots a machine with a folder of the test on /workspace.
func onWorkspace(t testing.TB) (v *vm, dir string) {
	t.Helper()
	dir = t.TempDir()
	v = startVM(t)
	v.serve(t, nfs.Export{Name: "/", Dir: dir, ID: 1})
	v.mount(t, guestproto.MountPoint{Export: "/", Target: "/workspace"})
	return v, dir
}

// start runs a command in the guest without waiting for it.
func (v *vm) start(t testing.TB, command ...string) func() (string, int32) {
	t.Helper()
	id := guestproto.ExecID(fmt.Sprint("exec-", v.execs.Add(1)))
	req := guestproto.Spawn{ID: id, Command: command, Env: []string{"LANG=C.UTF-8"}, Workdir: "/workspace"}
	if err := v.link.Spawn(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	a, err := v.link.Attach(t.Context(), id, 0)
	if err != nil {
		t.Fatal(err)
	}
	return func() (string, int32) {
		t.Helper()
		defer a.Close() //nolint:errcheck // it has ended
		var out bytes.Buffer
		status := int32(-1)
		for {
			f, err := a.Recv()
			if errors.Is(err, io.EOF) {
				return out.String(), status
			}
			if err != nil {
				t.Fatalf("%q: %v", command, err)
			}
			switch f.Type { //nolint:exhaustive // the others carry no output
			case frame.Stdout, frame.Stderr:
				out.Write(f.Payload)
			case frame.Exit:
				if status, err = f.Status(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// sh runs a script in the guest, in /workspace, and returns what it wrote.
func (v *vm) sh(t testing.TB, script string) (string, int32) {
	t.Helper()
	return v.start(t, "/bin/sh", "-c", script)()
}

// must runs a script that is to succeed.
func (v *vm) must(t testing.TB, script string) string {
	t.Helper()
	out, status := v.sh(t, script)
	if status != 0 {
		t.Fatalf("%s\nstatus %d\n%s", script, status, out)
	}
	return out
}
