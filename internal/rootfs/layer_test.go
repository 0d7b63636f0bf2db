package rootfs

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/erofs/go-erofs"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/size"
)

// stack writes an image of layers, each on the one before.
func stack(t *testing.T, limits Limits, layers ...io.Reader) (*os.File, error) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	b, err := NewBuilderWithin(f, limits)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		if err := b.AddLayer(t.Context(), l); err != nil {
			return f, err
		}
	}
	return f, b.Finish()
}

// listing returns all names of an image, with the contents of small files.
func listing(t *testing.T, f *os.File) []string {
	t.Helper()
	img, err := erofs.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	err = fs.WalkDir(img, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == "." {
			return err
		}
		line := path
		if d.Type().IsRegular() {
			data, err := fs.ReadFile(img, path)
			if err != nil {
				return err
			}
			line += "=" + string(data[:min(len(data), 8)])
		}
		out = append(out, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestWhiteouts(t *testing.T) {
	base := []member{
		dir("d", 0o755), file("d/a", 0o644, "a"), file("d/b", 0o644, "b"), dir("d/sub", 0o755), file("d/sub/x", 0o644, "x"),
		file("f", 0o644, "f"), link(tar.TypeSymlink, "l", "d"),
	}
	for name, c := range map[string]struct {
		layer []member
		want  []string
	}{
		"a file":                  {[]member{file("d/.wh.a", 0, "")}, []string{"d", "d/b=b", "d/sub", "d/sub/x=x", "f=f", "l"}},
		"a directory":             {[]member{file(".wh.d", 0, "")}, []string{"f=f", "l"}},
		"through a link":          {[]member{file("l/.wh.a", 0, "")}, []string{"d", "d/b=b", "d/sub", "d/sub/x=x", "f=f", "l"}},
		"of nothing":              {[]member{file("no/where/.wh.a", 0, ""), file(".wh.zzz", 0, "")}, []string{"d", "d/a=a", "d/b=b", "d/sub", "d/sub/x=x", "f=f", "l"}},
		"opaque, first":           {[]member{file("d/.wh..wh..opq", 0, ""), file("d/n", 0o644, "n")}, []string{"d", "d/n=n", "f=f", "l"}},
		"opaque, last":            {[]member{dir("d", 0o700), file("d/n", 0o644, "n"), dir("d/sub", 0o755), file("d/sub/y", 0o644, "y"), file("d/.wh..wh..opq", 0, "")}, []string{"d", "d/n=n", "d/sub", "d/sub/y=y", "f=f", "l"}},
		"and a new one":           {[]member{file("f", 0o644, "new"), file(".wh.f", 0, "")}, []string{"d", "d/a=a", "d/b=b", "d/sub", "d/sub/x=x", "f=new", "l"}},
		"and a new directory":     {[]member{dir("d", 0o755), file("d/n", 0o644, "n"), file(".wh.d", 0, "")}, []string{"d", "d/n=n", "f=f", "l"}},
		"climbing":                {[]member{file("d/.wh...", 0, ""), file(".wh..", 0, "")}, []string{"d", "d/a=a", "d/b=b", "d/sub", "d/sub/x=x", "f=f", "l"}},
		"what aufs keeps":         {[]member{file(".wh..wh.plnk", 0, ""), file(".wh..wh.aufs", 0, "")}, []string{"d", "d/a=a", "d/b=b", "d/sub", "d/sub/x=x", "f=f", "l"}},
		"a directory over a file": {[]member{dir("f", 0o755), file("f/n", 0o644, "n")}, []string{"d", "d/a=a", "d/b=b", "d/sub", "d/sub/x=x", "f", "f/n=n", "l"}},
		"a file over a directory": {[]member{file("d", 0o644, "now")}, []string{"d=now", "f=f", "l"}},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := stack(t, DefaultLimits(), archiveOf(t, base...), archiveOf(t, c.layer...))
			if err != nil {
				t.Fatal(err)
			}
			if got := listing(t, f); !slices.Equal(got, c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

// TestHiddenDataGoes hides a large file and looks at what the image takes.
func TestHiddenDataGoes(t *testing.T) {
	big := strings.Repeat("data", 1<<20)
	linked := []member{file("big", 0o644, big), file("kept", 0o644, big), link(tar.TypeLink, "name", "kept"), dir("d", 0o755), file("d/moved", 0o644, big)}
	f, err := stack(t, DefaultLimits(), archiveOf(t, linked...),
		archiveOf(t, file(".wh.big", 0, ""), file(".wh.kept", 0, ""), link(tar.TypeLink, "d", "d/moved")))
	if err != nil {
		t.Fatal(err)
	}
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if got := int(Occupied(fi)); got > 2*len(big)+1<<20 {
		t.Errorf("the image takes %d bytes for two files of %d", got, len(big))
	}
	img, err := erofs.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"name", "d"} {
		if got, err := fs.ReadFile(img, name); err != nil || string(got) != big {
			t.Errorf("%s holds %d bytes, %v, want its %d", name, len(got), err, len(big))
		}
	}
}

func TestHolesTakeNothing(t *testing.T) {
	zeros := make([]byte, 32<<20)
	zeros[5<<20] = 1
	f, err := stack(t, DefaultLimits(), archiveOf(t, file("sparse", 0o644, string(zeros))))
	if err != nil {
		t.Fatal(err)
	}
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if Occupied(fi) > size.MiB {
		t.Errorf("the image takes %v", Occupied(fi))
	}
	img, err := erofs.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := fs.ReadFile(img, "sparse"); err != nil || !bytes.Equal(got, zeros) {
		t.Errorf("the file came out as %d bytes, %v", len(got), err)
	}
}

func TestLimits(t *testing.T) {
	limits := Limits{Data: size.MiB, Written: 512 * size.KiB, Entries: 100, Names: 10 * size.KiB}
	var many, long []member
	for i := range 200 {
		many = append(many, file(fmt.Sprint("f", i), 0o644, ""))
		long = append(long, file(fmt.Sprintf("%s%d", strings.Repeat("n", 200), i%90), 0o644, ""))
	}
	for name, c := range map[string]struct {
		members []member
		want    fault.Kind
	}{
		"entries": {many, fault.Invalid},
		"names":   {long, fault.Invalid},
		"zeros":   {[]member{file("z", 0o644, string(make([]byte, 2<<20)))}, fault.Invalid},
		"written": {[]member{file("a", 0o644, strings.Repeat("x", 1<<20))}, fault.Exhausted},
	} {
		if _, err := stack(t, limits, archiveOf(t, c.members...)); fault.KindOf(err) != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

// TestImageOfImage copies an image into another and lays a layer on it.
func TestImageOfImage(t *testing.T) {
	suid := file("bin/su", 0o4755, strings.Repeat("s", 5000))
	suid.Uid, suid.Gid = 7, 8
	suid.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00"}
	null := member{tar.Header{Typeflag: tar.TypeChar, Name: "null", Mode: 0o666, Devmajor: 1, Devminor: 3}, ""}
	base, err := stack(t, DefaultLimits(), archiveOf(t, dir("./", 0o751), dir("tmp", 0o1777), suid, null,
		link(tar.TypeLink, "bin/su2", "bin/su"), link(tar.TypeSymlink, "s", "/bin"), member{tar.Header{Typeflag: tar.TypeFifo, Name: "p"}, ""}))
	if err != nil {
		t.Fatal(err)
	}
	want := attributes(t, base)
	f, err := os.Create(filepath.Join(t.TempDir(), "copy"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	b, err := NewBuilder(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(b.AddImage(t.Context(), base), b.AddLayer(t.Context(), archiveOf(t, file("new", 0o644, "n"), file(".wh.tmp", 0, ""))), b.Finish()); err != nil {
		t.Fatal(err)
	}
	got := attributes(t, f)
	if _, ok := got["new"]; !ok || got["tmp"] != "" {
		t.Errorf("the layer is not on it: %q", got)
	}
	delete(want, "tmp")
	want["."] = got["."] // it has one directory less
	for name, attrs := range want {
		if got[name] != attrs {
			t.Errorf("%s is %s, want %s", name, got[name], attrs)
		}
	}
}

// attributes describes each file of an image but for the numbers of inodes.
func attributes(t *testing.T, f *os.File) map[string]string {
	t.Helper()
	img, err := erofs.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	err = fs.WalkDir(img, ".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st := statOf(t, img, path)
		out[path] = fmt.Sprintf("%v %d %d:%d %d %d.%d links %d %q", st.Mode, st.Size, st.UID, st.GID, st.Rdev, st.Mtime, st.MtimeNs, st.Nlink, st.Xattrs)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// FuzzLayers lays two layers on each other, and an image of both on nothing.
func FuzzLayers(f *testing.F) {
	read := func(members ...member) []byte {
		data, err := io.ReadAll(archiveOf(f, members...))
		if err != nil {
			f.Fatal(err)
		}
		return data
	}
	lower := read(dir("d", 0o755), file("d/a", 0o644, "a"), link(tar.TypeLink, "h", "d/a"), link(tar.TypeSymlink, "l", "d"))
	f.Add(lower, read(file("d/.wh.a", 0, ""), file("l/.wh..wh..opq", 0, ""), file("l/b", 0o644, "b"), link(tar.TypeLink, "d", "h")))
	f.Add(lower, read(file(".wh.d", 0, ""), file("d", 0o644, "now a file"), file(".wh..", 0, "")))
	limits := Limits{Data: size.MiB, Written: size.MiB, Entries: 1000, Names: 64 * size.KiB}
	f.Fuzz(func(t *testing.T, lower, upper []byte) {
		made, err := stack(t, limits, bytes.NewReader(lower), bytes.NewReader(upper))
		if err != nil {
			if fault.KindOf(err) == fault.Internal {
				t.Errorf("%v: nobody foresaw it", err)
			}
			return
		}
		want := attributes(t, made)
		out, err := os.Create(filepath.Join(t.TempDir(), "copy"))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = out.Close() }()
		b, err := NewBuilder(out)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(b.AddImage(t.Context(), made), b.Finish()); err != nil {
			t.Fatal(err)
		}
		if got := attributes(t, out); !maps.Equal(got, want) {
			t.Errorf("copied:\n%q, want\n%q", got, want)
		}
	})
}
