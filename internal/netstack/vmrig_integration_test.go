//go:build integration

package netstack

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/guestlink"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/instance"
	ground "github.com/xfeldman/aegisvm/internal/machine"
	"github.com/xfeldman/aegisvm/internal/paths"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/qemu"
)

// vm is a machine whose card is at the end of a network.
type vm struct {
	*Network

	machine vmm.Machine
	link    instance.Guest
	world   *world
	execs   int
}

func startVM(t *testing.T) *vm {
	t.Helper()
	ready, bin := os.Getenv("AEGIS_TEST_HOME"), os.Getenv("AEGIS_TEST_BIN")
	if ready == "" || bin == "" {
		if os.Getenv("AEGIS_REQUIRE_VM") == "1" {
			t.Fatal("VMs are required: AEGIS_TEST_HOME and AEGIS_TEST_BIN are not set")
		}
		t.Skip("AEGIS_TEST_HOME and AEGIS_TEST_BIN are not set: run this with make integration")
	}
	home := paths.Home(filepath.Join(t.TempDir(), "home"))
	if err := home.Create(); err != nil {
		t.Fatal(err)
	}
	for dir, link := range map[string]string{filepath.Join(ready, "kernel"): home.Kernel(), filepath.Join(ready, "data", "images"): home.Images()} {
		if err := errors.Join(os.Remove(link), os.Symlink(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	v := &vm{world: &world{at: map[string]string{}}}
	z := newNames()
	z.set("example.com", "93.184.216.34")
	z.set("evil.example", "10.0.0.1")
	var err error
	if v.Network, err = New(Config{Dial: v.world.dial, Resolver: z, Log: log, Denied: func(d Denial) { t.Log(d) }}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.Close() })
	v.boot(t, home, filepath.Join(bin, "aegis-harness"), log)
	return v
}

func (v *vm) boot(t *testing.T, home paths.Home, harness string, log *slog.Logger) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	driver, err := qemu.Open(ctx, qemu.Options{
		Binary: os.Getenv("AEGIS_QEMU"), Accel: qemu.Accel(os.Getenv("AEGIS_ACCEL")), Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	spec := instance.Spec{Command: []string{"true"}}
	if err := spec.Complete(instance.Defaults{}); err != nil {
		t.Fatal(err)
	}
	magic := guestproto.NewMagic()
	plan, err := ground.NewGround(ground.Options{Home: home, Harness: harness, Driver: driver, Log: log}).
		Prepare(ctx, instance.NewID(), spec, magic, true)
	if err != nil {
		t.Fatal(err)
	}
	recipe := plan.Recipe
	recipe.Network = true
	if v.machine, err = driver.Start(ctx, recipe, vmm.Boot{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.machine.Kill(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
	})
	v.attach(t)
	v.link, err = guestlink.Linker{Log: log}.Link(ctx, v.machine, magic, guestproto.Hello{
		MinVersion: guestproto.MinVersion, Version: guestproto.Version, Owned: []guestproto.Owned{},
		Identity: &guestproto.Identity{Instance: "inst-1", Hostname: "box"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.link.Close() })
}

// attach connects the network to the machine's card.
func (v *vm) attach(t *testing.T) {
	t.Helper()
	conn, err := v.machine.AttachNetwork(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	v.Attach(conn)
}

// spawn starts a Python program.
func (v *vm) spawn(t *testing.T, program string) instance.Attachment {
	t.Helper()
	v.execs++
	id := guestproto.ExecID("exec-" + strconv.Itoa(v.execs))
	if err := v.link.Spawn(t.Context(), guestproto.Spawn{ID: id, Command: []string{"python3", "-u", "-c", program}}); err != nil {
		t.Fatal(err)
	}
	a, err := v.link.Attach(t.Context(), id, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a
}

// python runs a program to its end, and returns what it printed.
func (v *vm) python(t *testing.T, program string) string {
	t.Helper()
	a := v.spawn(t, program)
	var out bytes.Buffer
	for {
		f, err := a.Recv()
		if errors.Is(err, io.EOF) {
			return out.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		if f.Type == frame.Stdout || f.Type == frame.Stderr {
			out.Write(f.Payload)
		}
	}
}
