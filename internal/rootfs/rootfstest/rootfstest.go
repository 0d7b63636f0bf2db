// Package rootfstest puts a base image and a disk template into a home for tests
// that start no real VM.
package rootfstest

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/xfeldman/aegisvm/internal/paths"
	"github.com/xfeldman/aegisvm/internal/rootfs"
)

// Archive returns a tar stream of a tiny root file system.
func Archive(tb testing.TB) io.Reader {
	tb.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755},
		{Typeflag: tar.TypeDir, Name: "./tmp", Mode: 0o1777},
		{Typeflag: tar.TypeReg, Name: "./etc/hostname", Mode: 0o644},
	} {
		if err := w.WriteHeader(&h); err != nil {
			tb.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return &buf
}

// Install makes the home if need be, a tiny base image in it, and a disk template
// that is a hole.
func Install(tb testing.TB, home paths.Home) {
	tb.Helper()
	if err := home.Create(); err != nil {
		tb.Fatal(err)
	}
	_, err := rootfs.BuildImage(tb.Context(), home, rootfs.Image{
		Name: rootfs.BaseImage, Suite: "a test", Env: []string{"PATH=" + rootfs.DefaultPath},
	}, Archive(tb))
	if err != nil {
		tb.Fatal(err)
	}
	f, err := os.Create(rootfs.TemplatePath(home))
	if err != nil {
		tb.Fatal(err)
	}
	if err := errors.Join(f.Truncate(int64(rootfs.TemplateSize)), f.Close()); err != nil {
		tb.Fatal(err)
	}
}
