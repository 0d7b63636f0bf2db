package qemu

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func TestCopies(t *testing.T) {
	var c copies
	defer c.clear()
	path := filepath.Join(t.TempDir(), "kernel")
	read := func() (string, *os.File) {
		t.Helper()
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer closeAll(f)
		m, err := c.open(f)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { closeAll(m) })
		b, err := io.ReadAll(io.NewSectionReader(m, 0, 100))
		if err != nil {
			t.Fatal(err)
		}
		return string(b), m
	}
	write(t, path, "one")
	for range 3 {
		if got, _ := read(); got != "one" || len(c.files) != 1 {
			t.Errorf("%q in %d copies", got, len(c.files))
		}
	}
	_, old := read()
	write(t, path, "other")
	if got, _ := read(); got != "other" || len(c.files) != 2 {
		t.Errorf("%q in %d copies", got, len(c.files))
	}
	for i := range 3 * maxCopies {
		write(t, path, fmt.Sprintf("%0*d", i+10, i))
		read()
	}
	if len(c.files) > maxCopies {
		t.Errorf("%d copies", len(c.files))
	}
	// As a VMM would that has another VM's kernel in mind.
	if w, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", old.Fd()), os.O_RDWR, 0); err == nil {
		if _, err := w.WriteAt([]byte("evil"), 0); err == nil {
			t.Error("a copy can be changed")
		}
		closeAll(w)
	}
}
