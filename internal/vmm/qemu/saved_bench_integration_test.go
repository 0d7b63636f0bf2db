//go:build integration

package qemu

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// benchSpec is what an instance has by default, without its disks.
func benchSpec(b *testing.B, g ground) vmm.Spec {
	b.Helper()
	return vmm.Spec{
		ID: "bench", Dir: b.TempDir(), Memory: 512 * size.MiB, VCPUs: 1, Kernel: g.kernel, Initrd: g.initrd, Network: true,
	}
}

func must(b *testing.B, errs ...error) {
	b.Helper()
	if err := errors.Join(errs...); err != nil {
		b.Fatal(err)
	}
}

// echoed waits for the first byte that a guest sends back.
func echoed(b *testing.B, conn net.Conn, err error) {
	b.Helper()
	must(b, err)
	defer conn.Close() //nolint:errcheck // a test's
	must(b, conn.SetDeadline(time.Now().Add(time.Minute)))
	_, err = conn.Write([]byte("x"))
	must(b, err)
	_, err = conn.Read(make([]byte, 1))
	must(b, err)
}

// template boots a machine and returns it paused, and its guest used.
func template(b *testing.B) (*Driver, ground, *Machine) {
	b.Helper()
	g, err := testGround()
	if err != nil {
		b.Skip(err)
	}
	d, err := Open(b.Context(), Options{Binary: os.Getenv("AEGIS_QEMU"), Accel: TCG})
	must(b, err)
	m, err := d.Start(b.Context(), benchSpec(b, g), vmm.Boot{})
	must(b, err)
	conn, err := m.DialGuest(b.Context())
	echoed(b, conn, err)
	must(b, m.Pause(b.Context()))
	return d, g, m.(*Machine)
}

// times are figures and their floors, which take turns.
type times map[string][]time.Duration

func (t times) add(name string, begin time.Time) { t[name] = append(t[name], time.Since(begin)) }

func (t times) report(b *testing.B) {
	b.Helper()
	b.ReportMetric(0, "ns/op")
	for name, all := range t {
		slices.Sort(all)
		b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, name+"-ms")
	}
}

// bareRestore is the least that starts a clone: QEMU with the same arguments, the
// commands that load the state from its file, and nothing looked at. It returns when the
// guest has answered.
func bareRestore(b *testing.B, d *Driver, spec *vmm.Spec, saved vmm.Saved, mem *memory) time.Duration {
	b.Helper()
	f, err := makeFolder(b.Context(), spec.Dir)
	must(b, err)
	ram, err := mem.clone()
	must(b, err)
	l, err := d.prepare(f, spec, origin{memory: ram, filled: true, clone: true, restore: true})
	must(b, err)
	state, err := os.Open(saved.State.Path)
	must(b, err)
	begin := time.Now()
	p, err := l.start(d.binary)
	must(b, err)
	conn, err := f.dial(b.Context(), qmpName)
	must(b, err)
	q, err := newQMP(b.Context(), conn)
	must(b, err)
	must(b, q.migrate(b.Context(), "migrate-incoming", false, state), q.finishMigration(b.Context()), q.execute(b.Context(), "cont", nil, nil))
	conn, err = f.dial(b.Context(), ctlName)
	echoed(b, conn, err)
	took := time.Since(begin)
	must(b, p.kill())
	_, err = p.wait()
	must(b, err)
	q.Close()
	p.close()
	l.close()
	f.clear()
	f.close()
	return took
}

// BenchmarkRestore measures starts from a saved machine to the guest's first
// answer, in every way, beside QEMU by hand.
func BenchmarkRestore(b *testing.B) {
	d, g, m := template(b)
	dir := b.TempDir()
	saved, held, err := m.Save(b.Context(), vmm.Dest{Dir: dir})
	must(b, err, m.Kill(b.Context()))
	saved.Memory, err = held.Store(b.Context(), filepath.Join(dir, "memory"))
	must(b, err)
	mem, _ := held.(*memory)
	t := times{}
	start := func(name string, from vmm.Restore) vmm.Machine {
		spec := benchSpec(b, g)
		begin := time.Now()
		m, err := d.Start(b.Context(), spec, from)
		must(b, err)
		t.add(name+"-loaded", begin)
		must(b, m.Resume(b.Context()))
		conn, err := m.DialGuest(b.Context())
		echoed(b, conn, err)
		t.add(name, begin)
		return m
	}
	clone := start("warm", vmm.Restore{Saved: saved, Memory: held})
	must(b, clone.Pause(b.Context()))
	clone.(*Machine).roomFor = func(size.Bytes) bool { return false } // apart it is like any other
	whole, _, err := clone.(*Machine).Save(b.Context(), vmm.Dest{Dir: b.TempDir()})
	must(b, err, clone.Kill(b.Context()))
	delete(t, "warm")
	delete(t, "warm-loaded")
	for b.Loop() {
		spec := benchSpec(b, g)
		t["floor"] = append(t["floor"], bareRestore(b, d, &spec, saved, mem))
		for name, from := range map[string]vmm.Restore{"clone": {Saved: saved, Memory: held}, "own": {Saved: saved}, "whole": {Saved: whole}} {
			m := start(name, from)
			begin := time.Now()
			must(b, m.Kill(b.Context()))
			t.add("kill", begin)
		}
		begin := time.Now()
		loaded, err := d.LoadMemory(b.Context(), saved)
		t.add("load-memory", begin)
		must(b, err, loaded.Close())
	}
	t.report(b)
}

// bareSave is QEMU's own stop and save to a file.
func bareSave(b *testing.B, m *Machine, whole bool, t times, name string) {
	b.Helper()
	f, err := os.Create(filepath.Join(b.TempDir(), "state"))
	must(b, err)
	q := m.monitor()
	begin := time.Now()
	must(b, q.execute(b.Context(), "stop", nil, nil), q.migrate(b.Context(), "migrate", whole, f), q.finishMigration(b.Context()))
	t.add(name, begin)
	// Its end has no event but the file's, which a file on disk does not tell.
	for {
		var s struct{ Status string }
		must(b, q.execute(b.Context(), "query-status", nil, &s))
		if s.Status == postmigrate {
			break
		}
	}
	must(b, q.execute(b.Context(), "cont", nil, nil))
}

// BenchmarkSave measures how long a machine stands for a save, from Pause to the
// return of Resume, beside QEMU's own stop and save.
func BenchmarkSave(b *testing.B) {
	d, g, m := template(b)
	saved, held, err := m.Save(b.Context(), vmm.Dest{Dir: b.TempDir()})
	must(b, err, m.Kill(b.Context()))
	owned, err := d.LoadMemory(b.Context(), func() vmm.Saved {
		s := saved
		s.Memory, err = held.Store(b.Context(), filepath.Join(b.TempDir(), "memory"))
		must(b, err)
		return s
	}())
	must(b, err)
	machines := map[string]*Machine{}
	for name, from := range map[string]vmm.Restore{"clone": {Saved: saved, Memory: held}, "own": {Saved: saved, Memory: owned, Own: true}} {
		m, err := d.Start(b.Context(), benchSpec(b, g), from)
		must(b, err, m.Resume(b.Context()))
		machines[name], _ = m.(*Machine)
		defer func() { must(b, m.Kill(context.Background())) }()
	}
	t := times{}
	save := func(m *Machine, name string, hasty bool) {
		conn, err := m.DialGuest(b.Context())
		echoed(b, conn, err)
		begin := time.Now()
		must(b, m.Pause(b.Context()))
		s, mem, err := m.Save(b.Context(), vmm.Dest{Dir: b.TempDir(), Hasty: hasty})
		must(b, err)
		t.add(name, begin)
		must(b, m.Resume(b.Context()))
		if mem != nil {
			must(b, mem.Close())
		}
		_ = s
	}
	for b.Loop() {
		bareSave(b, machines["own"], false, t, "own-floor")
		save(machines["own"], "own", false)
		bareSave(b, machines["clone"], true, t, "clone-floor")
		save(machines["clone"], "clone-apart", false)
		machines["clone"].roomFor = func(size.Bytes) bool { return false }
		save(machines["clone"], "clone-hasty", true)
		save(machines["clone"], "clone-compressed", false)
		machines["clone"].roomFor = roomFor
	}
	t.report(b)
}

// BenchmarkFork measures how long a machine that owns its memory stands when it is
// forked, until its guest answers again, and what each of 30 clones takes.
func BenchmarkFork(b *testing.B) {
	d, g, m := template(b)
	must(b, m.Resume(b.Context()))
	t := times{}
	spec := benchSpec(b, g)
	for first := true; b.Loop(); first = false {
		if !first { // it is a clone since the last round
			boot, err := d.Start(b.Context(), benchSpec(b, g), vmm.Boot{})
			must(b, err)
			m, _ = boot.(*Machine)
			conn, err := m.DialGuest(b.Context())
			echoed(b, conn, err)
		}
		begin := time.Now()
		must(b, m.Pause(b.Context()))
		saved, mem, err := m.Save(b.Context(), vmm.Dest{Dir: b.TempDir()})
		must(b, err, m.Kill(b.Context()))
		source, err := d.Start(b.Context(), spec, vmm.Restore{Saved: saved, Memory: mem})
		must(b, err, source.Resume(b.Context()))
		conn, err := source.DialGuest(b.Context())
		echoed(b, conn, err)
		t.add("pause", begin)
		begin = time.Now()
		clones := []vmm.Machine{source}
		for range 30 {
			c, err := d.Start(b.Context(), benchSpec(b, g), vmm.Restore{Saved: saved, Memory: mem})
			must(b, err, c.Resume(b.Context()))
			conn, err := c.DialGuest(b.Context())
			echoed(b, conn, err)
			must(b, c.Pause(b.Context())) // the suite's guest never sits still
			clones = append(clones, c)
		}
		t.add("30-clones", begin)
		u, err := clones[15].Usage()
		must(b, err, mem.Close())
		b.ReportMetric(float64(u.Memory)/float64(size.MiB), "MB-per-clone")
		for _, c := range clones {
			must(b, c.Kill(b.Context()))
		}
	}
	t.report(b)
}
