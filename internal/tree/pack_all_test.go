//go:build linux

package tree

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// packed returns the members of a stream, each described in a line.
func packed(t *testing.T, dir string, opts PackOptions) []string {
	t.Helper()
	s, err := OpenSource(dir + "/.")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	var buf bytes.Buffer
	if err := s.PackAll(&buf, opts); err != nil {
		t.Fatal(err)
	}
	var out []string
	for in := tar.NewReader(&buf); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		var line strings.Builder
		fmt.Fprintf(&line, "%c %s", h.Typeflag, h.Name)
		if h.Linkname != "" {
			line.WriteString(" -> " + h.Linkname)
		}
		if h.Devmajor+h.Devminor > 0 {
			fmt.Fprintf(&line, " %d,%d", h.Devmajor, h.Devminor)
		}
		for _, k := range slices.Sorted(maps.Keys(h.PAXRecords)) {
			if k != "mtime" && k != "atime" {
				fmt.Fprintf(&line, " %s=%q", k, h.PAXRecords[k])
			}
		}
		out = append(out, line.String())
	}
	slices.Sort(out)
	return out
}

func TestPackAll(t *testing.T) {
	dir := t.TempDir()
	p := func(name string) string { return filepath.Join(dir, name) }
	for _, err := range []error{
		os.WriteFile(p("file"), []byte("x"), 0o600), os.Symlink("file", p("link")), unix.Mkfifo(p("pipe"), 0o600), os.Link(p("pipe"), p("pipe2")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"1 ./pipe2 -> ./pipe", "2 ./link -> file", "5 ./", "6 ./pipe", "0 ./file"}
	if err := unix.Setxattr(p("file"), "user.note", []byte("a\x01"), 0); err == nil {
		want[4] += ` SCHILY.xattr.user.note="a\x01"`
	}
	if err := unix.Mknod(p("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 300))); err == nil {
		want = append(want, "3 ./null 1,300")
	}
	slices.Sort(want)
	got := packed(t, dir, PackOptions{})
	// Which of two names comes first is the folder's affair.
	for i, line := range got {
		switch line {
		case "1 ./pipe -> ./pipe2":
			got[i] = "1 ./pipe2 -> ./pipe"
		case "6 ./pipe2":
			got[i] = "6 ./pipe"
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("packed\n%q, want\n%q", got, want)
	}
}

// TestPackLayer packs what an overlay keeps in its upper folder.
func TestPackLayer(t *testing.T) {
	dir := t.TempDir()
	p := func(name string) string { return filepath.Join(dir, name) }
	if err := unix.Mknod(p("probe"), unix.S_IFCHR, 0); err != nil {
		t.Skipf("whiteouts need root: %v", err)
	}
	for _, err := range []error{
		os.Remove(p("probe")), os.MkdirAll(p("d/opaque"), 0o755), os.WriteFile(p("d/new"), nil, 0o600), unix.Mknod(p("d/gone"), unix.S_IFCHR, 0),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Setxattr(p("d/opaque"), "trusted.overlay.opaque", []byte("y"), 0); err != nil {
		t.Skipf("overlays need trusted attributes: %v", err)
	}
	if err := unix.Setxattr(p("d"), "trusted.overlay.origin", []byte("x"), 0); err != nil {
		t.Fatal(err)
	}
	want := []string{"0 ./d/.wh.gone", "0 ./d/new", "0 ./d/opaque/.wh..wh..opq", "5 ./", "5 ./d/", "5 ./d/opaque/"}
	if got := packed(t, dir, PackOptions{Layer: true}); !slices.Equal(got, want) {
		t.Errorf("packed\n%q, want\n%q", got, want)
	}
}
