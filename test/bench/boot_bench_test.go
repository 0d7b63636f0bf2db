//go:build integration

package bench

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/internal/guestlink"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/machine"
	"github.com/xfeldman/aegisvm/internal/paths"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/qemu"
)

// bed is a home of its own in which machines run without a daemon.
type bed struct {
	home   paths.Home
	driver vmm.Driver
	ground *machine.Ground
	set    *instance.Set
	log    *slog.Logger
}

func newBed(b *testing.B) *bed {
	b.Helper()
	ready, bin := os.Getenv("AEGIS_TEST_HOME"), os.Getenv("AEGIS_TEST_BIN")
	if ready == "" || bin == "" {
		b.Skip("AEGIS_TEST_HOME and AEGIS_TEST_BIN are not set: run this with make bench")
	}
	home := paths.Home(filepath.Join(b.TempDir(), "home"))
	if err := home.Create(); err != nil {
		b.Fatal(err)
	}
	for dir, link := range map[string]string{filepath.Join(ready, "kernel"): home.Kernel(), filepath.Join(ready, "data", "images"): home.Images()} {
		if err := errors.Join(os.Remove(link), os.Symlink(dir, link)); err != nil {
			b.Fatal(err)
		}
	}
	driver, err := qemu.Open(b.Context(), qemu.Options{Accel: qemu.Accel(os.Getenv("AEGIS_ACCEL"))})
	if err != nil {
		b.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	linker := guestlink.Linker{Log: log}
	cold := booting{driver}
	ground := machine.NewGround(machine.Options{
		Home: home, Harness: filepath.Join(bin, "aegis-harness"), Driver: cold, Linker: linker, Log: log, Timeout: time.Minute,
	})
	return &bed{home, cold, ground, instance.NewSet(instance.World{
		Driver: cold, Ground: ground, Linker: linker, Log: log, Limits: instance.DefaultLimits(),
	}), log}
}

// booting is a driver whose machines all boot: there are no templates.
type booting struct{ vmm.Driver }

// Info implements vmm.Driver.
func (d booting) Info() vmm.Info {
	i := d.Driver.Info()
	i.Abilities.Save = false
	return i
}

// bare boots the kernel and waits for the first sign of its userspace, with nothing
// of AegisVM on the host but the driver.
func (x *bed) bare(b *testing.B) time.Duration {
	b.Helper()
	id := instance.NewID()
	spec := instance.Spec{Command: []string{"true"}}
	if err := spec.Complete(instance.Defaults{}); err != nil {
		b.Fatal(err)
	}
	plan, err := x.ground.Prepare(b.Context(), id, spec, guestproto.NewMagic(), true)
	if err != nil {
		b.Fatal(err)
	}
	recipe := plan.Recipe
	recipe.Cmdline += " " + guestproto.TraceArg
	begin := time.Now()
	m, err := x.driver.Start(b.Context(), recipe, vmm.Boot{})
	if err != nil {
		b.Fatal(err)
	}
	for console := filepath.Join(recipe.Dir, "console.log"); ; time.Sleep(time.Millisecond) {
		text, err := os.ReadFile(console)
		if bytes.Contains(text, []byte(guestproto.TraceUserspace)) {
			break
		}
		if time.Since(begin) > time.Minute {
			b.Fatalf("no userspace: %v\n%s", err, text)
		}
	}
	took := time.Since(begin)
	if err := errors.Join(m.Kill(b.Context()), x.ground.Clear(id)); err != nil {
		b.Fatal(err)
	}
	return took
}

// run runs true in a fresh VM and returns the time to its exit status.
func (x *bed) run(b *testing.B) time.Duration {
	b.Helper()
	begin := time.Now()
	r, err := x.set.Run(context.Background(), instance.Spec{Command: []string{"true"}})
	if err != nil {
		b.Fatal(err)
	}
	return toExit(b, r, begin)
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// BenchmarkBoot measures a cold boot to the exit status of the first command, beside
// the same kernel and initramfs booted bare to userspace. The two take turns.
func BenchmarkBoot(b *testing.B) {
	x := newBed(b)
	x.run(b) // warms the page cache
	var bare, full []time.Duration
	for b.Loop() {
		bare = append(bare, x.bare(b))
		full = append(full, x.run(b))
	}
	report(b, median(bare), median(full), "ms-to-exec")
}
