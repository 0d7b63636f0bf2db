package qemu

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

func testMemory(t *testing.T) *memory {
	t.Helper()
	m, err := newMemory(2 * size.MiB)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	if _, err := m.file.WriteAt([]byte("of the guest"), 5000); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestSealed does to a clone's memory what a VMM could that a guest has taken over.
func TestSealed(t *testing.T) {
	m := testMemory(t)
	m.free()
	theirs, err := m.clone()
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(theirs)
	again, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", theirs.Fd()), os.O_RDWR, 0)
	if err != nil {
		t.Fatalf("QEMU 7.2 opens it for writing: %v", err)
	}
	defer closeAll(again)
	for what, do := range map[string]func() error{
		"write":    func() error { _, err := again.WriteAt([]byte("x"), 5000); return err },
		"truncate": func() error { return again.Truncate(0) },
		"grow":     func() error { return again.Truncate(int64(4 * size.MiB)) },
		"punch": func() error {
			return unix.Fallocate(int(again.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 4096, 4096)
		},
		"map": func() error {
			_, err := unix.Mmap(int(again.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			return err
		},
		"our own": func() error { _, err := m.file.WriteAt([]byte("x"), 5000); return err },
	} {
		if err := do(); !errors.Is(err, unix.EPERM) {
			t.Errorf("%s: %v", what, err)
		}
	}
	private, err := unix.Mmap(int(again.Fd()), 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatalf("copy-on-write: %v", err)
	}
	private[5000] = 'X'
	b := make([]byte, 12)
	if _, err := m.file.ReadAt(b, 5000); err != nil || string(b) != "of the guest" {
		t.Errorf("%q, %v", b, err)
	}
	if err := unix.Munmap(private); err != nil {
		t.Error(err)
	}
}

// TestSealedTooEarly: somebody is still mapped to the memory.
func TestSealedTooEarly(t *testing.T) {
	m := testMemory(t)
	m.free()
	shared, err := unix.Mmap(int(m.file.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	if f, err := m.clone(); err == nil {
		closeAll(f)
		t.Error("sealed")
	}
	if err := unix.Munmap(shared); err != nil {
		t.Fatal(err)
	}
	f, err := m.clone()
	if err != nil {
		t.Errorf("when it has gone: %v", err)
	}
	closeAll(f)
}

// TestLoadMemory stores a memory and loads it again.
func TestLoadMemory(t *testing.T) {
	m := testMemory(t)
	file, err := m.Store(t.Context(), filepath.Join(t.TempDir(), "memory"))
	if err != nil {
		t.Fatal(err)
	}
	d := &Driver{}
	saved := vmm.Saved{Driver: driverName, Memory: file}
	got, err := d.LoadMemory(t.Context(), saved)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close() //nolint:errcheck // a test's
	b := make([]byte, 12)
	if _, err := got.(*memory).file.ReadAt(b, 5000); err != nil || string(b) != "of the guest" {
		t.Errorf("%q, %v", b, err)
	}
	for what, change := range map[string]func(*vmm.Saved){
		"another driver": func(s *vmm.Saved) { s.Driver = "another" },
		"whole":          func(s *vmm.Saved) { s.Whole = true },
	} {
		other := saved
		change(&other)
		if _, err := d.LoadMemory(t.Context(), other); !errors.Is(err, vmm.ErrStale) {
			t.Errorf("%s: %v", what, err)
		}
	}
	other := saved
	other.Memory.Digest = "sha256:00"
	if _, err := d.LoadMemory(t.Context(), other); !errors.Is(err, vmm.ErrDamaged) {
		t.Errorf("another image: %v", err)
	}
	if err := os.Remove(file.Path); err != nil {
		t.Fatal(err)
	}
	if _, err := d.LoadMemory(t.Context(), saved); !errors.Is(err, vmm.ErrDamaged) {
		t.Errorf("a missing image: %v", err)
	}
}

// TestMemoryOf finds the memory of a process, and nothing else.
func TestMemoryOf(t *testing.T) {
	m := testMemory(t)
	p, err := openProcess(os.Getpid(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	found, err := p.memory(int(m.file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer found.Close() //nolint:errcheck // a test's
	b := make([]byte, 12)
	if _, err := found.file.ReadAt(b, 5000); err != nil || string(b) != "of the guest" {
		t.Errorf("%q, %v", b, err)
	}
	other, err := os.Create(filepath.Join(t.TempDir(), "other"))
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(other)
	if _, err := p.memory(int(other.Fd())); err == nil {
		t.Error("a file is memory")
	}
	if _, err := p.memory(9999); err == nil {
		t.Error("nothing is memory")
	}
}

func TestCPUName(t *testing.T) {
	const cpu = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel\t\t: 85\ncpu MHz\t\t: 2600.1\nflags\t\t: fpu sse\n\nprocessor\t: 1\nvendor_id\t: Other\n"
	name := cpuName([]byte(cpu))
	for what, test := range map[string]struct {
		old, new string
		same     bool
	}{
		"frequency": {"2600.1", "3100.0", true}, "others": {"Other", "Another", true},
		"model": {": 85", ": 86", false}, "flags": {"sse", "sse avx", false}, "vendor": {"GenuineIntel", "AuthenticAMD", false},
	} {
		if same := cpuName([]byte(strings.Replace(cpu, test.old, test.new, 1))) == name; same != test.same {
			t.Errorf("%s: the same CPU: %v", what, same)
		}
	}
	if len(hostCPU()) != 12 {
		t.Errorf("this host's CPU is %q", hostCPU())
	}
}
