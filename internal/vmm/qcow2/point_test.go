package qcow2

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

func TestPoint(t *testing.T) {
	const disk = 8 * size.GiB
	path := filepath.Join(t.TempDir(), "overlay")
	if err := Create(path, disk, vmm.Layer{Path: "base of " + strings.Repeat("x", 200), Format: vmm.QCOW2}); err != nil {
		t.Fatal(err)
	}
	want := filepath.Join(t.TempDir(), "wanted")
	under := vmm.Layer{Path: "/proc/self/fd/33", Format: vmm.Raw}
	if err := Create(want, disk, under); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Point(path, under); err != nil {
			t.Fatal(err)
		}
		if got, made := contents(t, path), contents(t, want); !bytes.Equal(got, made) {
			t.Errorf("it is not what Create makes")
		}
	}
	// What is in order already is not written to: machines run on it.
	if err := os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	before, _ := os.Stat(path)
	if err := Point(path, under); err != nil {
		t.Error(err)
	}
	if after, _ := os.Stat(path); !after.ModTime().Equal(before.ModTime()) {
		t.Error("it was written to")
	}
}

func TestPointRefuses(t *testing.T) {
	good, err := overlay(8*size.MiB, vmm.Layer{Path: "base", Format: vmm.Raw})
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"empty":             {},
		"no qcow2":          bytes.Repeat([]byte("raw "), 1000),
		"another version":   changed(good, 7, 2),
		"no extension":      changed(good, headerLength, 0),
		"a name elsewhere":  changed(good, 14, 0x7f),
		"a longer name":     changed(good, 17, 1),
		"a shifted name":    changed(good, 15, good[15]+8),
		"a format too long": changed(good, headerLength+7, 200),
	} {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Point(path, vmm.Layer{Path: "/proc/self/fd/3", Format: vmm.Raw}); !errors.Is(err, ErrNot) {
			t.Errorf("%s: %v", name, err)
		}
		if !bytes.Equal(contents(t, path), b) {
			t.Errorf("%s: it was written to", name)
		}
	}
}

func changed(b []byte, at int, to byte) []byte {
	b = bytes.Clone(b)
	b[at] = to
	return b
}

func contents(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
