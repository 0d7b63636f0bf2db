package qcow2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

var base = vmm.Layer{Path: "base", Format: vmm.Raw}

// TestCreate reads an overlay as the format's description has it.
func TestCreate(t *testing.T) {
	for _, disk := range []size.Bytes{512, 8 * size.MiB, 512 * size.MiB, 512*size.MiB + 512, 8 * size.GiB, 5 * size.TiB, maxSize} {
		path := filepath.Join(t.TempDir(), "overlay")
		if err := Create(path, disk, base); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(b)%cluster != 0 {
			t.Errorf("%v: a file of %d bytes", disk, len(b))
		}
		u32 := func(at int) int { return int(binary.BigEndian.Uint32(b[at:])) }
		u64 := func(at int) int { return int(binary.BigEndian.Uint64(b[at:])) }
		if got, err := DiskSize(path, vmm.QCOW2); err != nil || got != disk || u64(24) != int(disk) {
			t.Errorf("%v: a disk of %v, %v", disk, got, err)
		}
		if u32(4) != 3 || u32(20) != 16 || u32(96) != 4 || u32(100) != 104 || u64(72) != 0 {
			t.Errorf("%v: header %x", disk, b[:104])
		}
		if name := string(b[u64(8) : u64(8)+u32(16)]); name != "base" || u64(8)+u32(16) > cluster {
			t.Errorf("%v: backing %q", disk, name)
		}
		if u32(104) != backingFormat || string(b[112:112+u32(108)]) != "raw" {
			t.Errorf("%v: extension %x", disk, b[104:128])
		}
		// Every cluster is counted once, and the first table covers the disk.
		l1, entries, counts := u64(40), u32(36), u64(u64(48))
		for i := range len(b) / cluster {
			if n := binary.BigEndian.Uint16(b[counts+2*i:]); n != 1 {
				t.Errorf("%v: cluster %d is used %d times", disk, i, n)
			}
		}
		if rest := b[counts+2*len(b)/cluster : counts+cluster]; len(bytes.Trim(rest, "\x00")) > 0 {
			t.Errorf("%v: clusters that are not there are used", disk)
		}
		if size.Bytes(entries)*perL1 < disk || l1+8*entries > len(b) || len(bytes.Trim(b[l1:], "\x00")) > 0 {
			t.Errorf("%v: %d entries at %d of %d", disk, entries, l1, len(b))
		}
	}
}

func TestCreateFails(t *testing.T) {
	dir := t.TempDir()
	there := filepath.Join(dir, "there")
	if err := os.WriteFile(there, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"no size":     Create(filepath.Join(dir, "a"), 0, base),
		"odd size":    Create(filepath.Join(dir, "b"), 1000, base),
		"negative":    Create(filepath.Join(dir, "c"), -512, base),
		"huge":        Create(filepath.Join(dir, "d"), maxSize+512, base),
		"no name":     Create(filepath.Join(dir, "e"), 512, vmm.Layer{Format: vmm.Raw}),
		"long name":   Create(filepath.Join(dir, "f"), 512, vmm.Layer{Path: strings.Repeat("x", maxName+1), Format: vmm.Raw}),
		"there":       Create(there, 512, base),
		"no folder":   Create(filepath.Join(dir, "none", "g"), 512, base),
		"not a qcow2": func() error { _, err := DiskSize(there, vmm.QCOW2); return err }(),
		"missing":     func() error { _, err := DiskSize(filepath.Join(dir, "none"), vmm.Raw); return err }(),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("%d files are left, %v", len(left), err)
	}
	if n, err := DiskSize(there, vmm.Raw); err != nil || n != 4 {
		t.Errorf("a raw file of %d bytes, %v", n, err)
	}
}

func FuzzVirtualSize(f *testing.F) {
	b, err := overlay(8*size.GiB, base)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[:32])
	f.Add(b[:31])
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{0xff}, 32))
	f.Add(append([]byte("QFI\xfb\x00\x00\x00\x02"), bytes.Repeat([]byte{0xff}, 24)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := VirtualSize(bytes.NewReader(b))
		if err == nil && (n <= 0 || n > maxSize) {
			t.Errorf("a disk of %d bytes", n)
		}
		if err != nil && !errors.Is(err, ErrNot) {
			t.Errorf("%v", err)
		}
	})
}
