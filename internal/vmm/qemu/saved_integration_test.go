//go:build integration

package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// answers fails the test unless the guest sends something back.
func answers(t *testing.T, m vmm.Machine) {
	t.Helper()
	conn, err := m.DialGuest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // the test is about something else
	_ = conn.SetDeadline(time.Now().Add(60 * time.Second))
	if _, err := conn.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatalf("the guest does not answer: %v", err)
	}
}

// savedMachine boots a machine, saves it and ends it.
func savedMachine(t *testing.T, d *Driver, spec vmm.Spec) (vmm.Saved, vmm.Memory) {
	t.Helper()
	m, err := d.Start(t.Context(), spec, vmm.Boot{})
	if err != nil {
		t.Fatal(err)
	}
	answers(t, m)
	if err := m.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	saved, mem, err := m.(vmm.Saver).Save(t.Context(), vmm.Dest{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mem.Close() })
	kill(t, m)
	return saved, mem
}

// restored starts a machine from a saved one.
func restored(t *testing.T, d *Driver, spec vmm.Spec, from vmm.Restore) *Machine {
	t.Helper()
	m, err := d.Start(t.Context(), spec, from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill(t, m) })
	return m.(*Machine)
}

// littleRoom takes so many bytes and no more.
type littleRoom struct{ room int }

func (d *littleRoom) Write(p []byte) (int, error) {
	if d.room -= len(p); d.room < 0 {
		return 0, unix.ENOSPC
	}
	return len(p), nil
}

// TestSaveOnFullDisk saves an owner and a clone where there is no room.
func TestSaveOnFullDisk(t *testing.T) {
	g := requireVM(t)
	d := openDriver(t, Options{})
	saved, mem := savedMachine(t, d, newSpec(t, g))
	clone := restored(t, d, newSpec(t, g), vmm.Restore{Saved: saved, Memory: mem})
	for name, test := range map[string]struct {
		m        *Machine
		whole    bool
		compress bool
		apart    bool
		room     int
	}{
		"at once": {clone, true, false, false, 0}, "later": {clone, true, false, false, 20 << 20},
		"compressed": {clone, true, true, false, 1 << 20}, "without memory": {clone, false, false, false, 50 << 10},
		"apart": {clone, true, false, true, 50 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			if err := test.m.Resume(t.Context()); err != nil {
				t.Fatal(err)
			}
			answers(t, test.m)
			if err := test.m.Pause(t.Context()); err != nil {
				t.Fatal(err)
			}
			var err error
			begin := time.Now()
			how := manner{whole: test.whole, compress: test.compress}
			if test.apart {
				if how.apart, err = newMemory(128 * size.MiB); err != nil {
					t.Fatal(err)
				}
				defer how.apart.Close() //nolint:errcheck // it goes with the test
			}
			_, err = test.m.stream(t.Context(), &how, &littleRoom{test.room})
			if fault.KindOf(err) != fault.Exhausted || fault.HintOf(err) == "" {
				t.Errorf("%v (%s)", err, fault.HintOf(err))
			}
			t.Logf("%v after %v", err, time.Since(begin))
			if err := test.m.Resume(t.Context()); err != nil {
				t.Fatal(err)
			}
			answers(t, test.m)
			if err := test.m.Pause(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, _, err := test.m.Save(t.Context(), vmm.Dest{Dir: t.TempDir()}); err != nil {
				t.Errorf("save where there is room: %v", err)
			}
		})
	}
}

// TestWhole saves a clone where there is no room for its memory, as every clone was once: the state that
// holds it all starts, and what became of it is an owner.
func TestWhole(t *testing.T) {
	g := requireVM(t)
	d := openDriver(t, Options{})
	saved, mem := savedMachine(t, d, newSpec(t, g))
	clone := restored(t, d, newSpec(t, g), vmm.Restore{Saved: saved, Memory: mem})
	for _, room := range []bool{true, false} {
		if err := clone.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		answers(t, clone)
		if err := clone.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
		clone.roomFor = func(size.Bytes) bool { return room }
		s, apart, err := clone.Save(t.Context(), vmm.Dest{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		if s.Whole == (room && runtime.GOARCH == "amd64") {
			t.Errorf("room %v, and whole %v", room, s.Whole)
		}
		m := restored(t, d, newSpec(t, g), vmm.Restore{Saved: s, Memory: apart})
		if err := m.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		answers(t, m)
		kill(t, m)
		if apart != nil {
			_ = apart.Close()
		}
	}
}

// TestStateOfAnother gives QEMU a state that is what was saved, and not for it.
func TestStateOfAnother(t *testing.T) {
	g := requireVM(t)
	d := openDriver(t, Options{})
	saved, mem := savedMachine(t, d, newSpec(t, g))
	saved.Memory = store(t, mem)
	state, err := os.ReadFile(saved.State.Path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(state, []byte("microvm")) {
		t.Fatal("the state does not have the machine's name in it: this test tests nothing")
	}
	changed := bytes.Replace(state, []byte("microvm"), []byte("minivm!"), 1)
	if err := os.WriteFile(saved.State.Path, changed, 0o600); err != nil {
		t.Fatal(err)
	}
	sum := newSum(false)
	_, _ = sum.Write(changed)
	other := saved
	other.State.Digest = sum.Digest()
	spec := newSpec(t, g)
	_, err = d.Start(t.Context(), spec, vmm.Restore{Saved: other})
	if !errors.Is(err, vmm.ErrStale) || fault.HintOf(err) == "" || !strings.Contains(err.Error(), "minivm!") {
		t.Errorf("%v (%s)", err, fault.HintOf(err))
	}
	t.Log(err)
	if left, err := filepath.Glob(filepath.Join(spec.Dir, "*")); err != nil || len(left) != 2 {
		t.Errorf("left: %v, %v", left, err)
	}
	if err := os.WriteFile(saved.State.Path, state, 0o600); err != nil {
		t.Fatal(err)
	}
	m := restored(t, d, newSpec(t, g), vmm.Restore{Saved: saved, Memory: mem})
	if err := m.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	answers(t, m)
}

// TestHalfLoaded adopts from a daemon that died while QEMU waited for a state.
func TestHalfLoaded(t *testing.T) {
	g := requireVM(t)
	d := openDriver(t, Options{})
	spec := newSpec(t, g)
	m, err := d.start(t.Context(), &spec, origin{restore: true}, func(_ context.Context, m *Machine) error {
		if !m.loading {
			t.Error("QEMU does not wait")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	u, err := m.Usage()
	if err != nil {
		t.Fatal(err)
	}
	m.Release()
	if _, err := d.Adopt(t.Context(), spec.Dir); !errors.Is(err, vmm.ErrEnded) {
		t.Errorf("adopt: %v, not ErrEnded", err)
	}
	for end := time.Now().Add(5 * time.Second); unix.Kill(u.PID, 0) == nil; <-time.After(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("process %d is left", u.PID)
		}
	}
}

// TestLargerDisk starts a machine on a larger copy of its disk.
func TestLargerDisk(t *testing.T) {
	g := requireVM(t)
	d := openDriver(t, Options{})
	spec := newSpec(t, g)
	spec.Disks = []vmm.Disk{
		{Name: "base", Path: makeDisk(t, "base", 1<<20, 0o400), Format: vmm.Raw, ReadOnly: true},
		{Name: "disk", Path: makeDisk(t, "disk", 8<<20, 0o600), Format: vmm.Raw},
	}
	saved, mem := savedMachine(t, d, spec)
	larger := newSpec(t, g)
	larger.Disks = append(larger.Disks, spec.Disks...)
	larger.Disks[1].Path = makeDisk(t, "larger", 32<<20, 0o600)
	m := restored(t, d, larger, vmm.Restore{Saved: saved, Memory: mem})
	if err := m.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn, err := m.DialGuest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // the test is about something else
	want := fmt.Sprintf("\x021=%d\n", 32<<20)
	_ = conn.SetDeadline(time.Now().Add(60 * time.Second))
	if _, err := conn.Write([]byte("\x011?size disk\n")); err != nil {
		t.Fatal(err)
	}
	var seen []byte
	for buf := make([]byte, 100); !bytes.Contains(seen, []byte(want)); {
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("%q: %v", seen, err)
		}
		seen = append(seen, buf[:n]...)
		if bytes.HasSuffix(seen, []byte("\n")) && bytes.Contains(seen, []byte("\x02")) && !bytes.Contains(seen, []byte(want)) {
			t.Fatalf("the guest sees %q, want %q", seen, want)
		}
	}
}

// TestResumedAtOnce resumes machines whose guests have frames to send before QEMU
// may have begun to serve the network card's socket.
func TestResumedAtOnce(t *testing.T) {
	g := requireVM(t)
	d := openDriver(t, Options{})
	saved, mem := savedMachine(t, d, newSpec(t, g))
	rounds := 40
	if os.Getenv("AEGIS_STRESS") == "1" {
		rounds = 600
	}
	saved.Memory = store(t, mem)
	for i := range rounds {
		from := vmm.Restore{Saved: saved}
		if i%2 == 0 {
			from.Memory = mem
		}
		m, err := d.Start(t.Context(), newSpec(t, g), from)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Resume(t.Context()); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		answers(t, m)
		kill(t, m)
	}
}

func store(t *testing.T, mem vmm.Memory) vmm.File {
	t.Helper()
	f, err := mem.Store(t.Context(), filepath.Join(t.TempDir(), "memory"))
	if err != nil {
		t.Fatal(err)
	}
	return f
}
