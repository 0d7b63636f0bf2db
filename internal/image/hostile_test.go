package image

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/size"
)

func link(typ byte, name, target string) file {
	return file{tar.Header{Typeflag: typ, Name: name, Linkname: target, Mode: 0o777}, ""}
}

// TestHostileLayers has layers that want to reach the host or another image. What is not
// refused lands within the image, where a process with that root would see it.
func TestHostileLayers(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "victim")
	writeFile(t, outside, "untouched")
	dir := filepath.Dir(outside)
	climb := strings.Repeat("../", 20)
	for name, c := range map[string]struct {
		layers [][]file
		want   map[string]string // nil is refused
	}{
		"a symlinked parent":    {[][]file{{link(tar.TypeSymlink, "d", dir), reg("d/victim", "hit")}}, map[string]string{"d": "L---------", strings.TrimPrefix(outside, "/"): "hit"}},
		"of an earlier layer":   {[][]file{{link(tar.TypeSymlink, "d", dir)}, {reg("d/victim", "hit")}}, map[string]string{"d": "L---------", strings.TrimPrefix(outside, "/"): "hit"}},
		"a climbing symlink":    {[][]file{{link(tar.TypeSymlink, "d", climb+dir), reg("d/victim", "hit")}}, map[string]string{"d": "L---------", strings.TrimPrefix(outside, "/"): "hit"}},
		"a whiteout by a link":  {[][]file{{link(tar.TypeSymlink, "d", dir)}, {reg("d/.wh.victim", "")}}, map[string]string{"d": "L---------"}},
		"an absolute name":      {[][]file{{reg(outside, "hit")}}, map[string]string{strings.TrimPrefix(outside, "/"): "hit"}},
		"a name that climbs":    {[][]file{{reg(climb+outside, "hit")}}, nil},
		"a whiteout that climb": {[][]file{{reg("../.wh.victim", "")}}, nil},
		"a hard link out":       {[][]file{{link(tar.TypeLink, "h", climb+outside)}}, nil},
		"a hard link, absolute": {[][]file{{link(tar.TypeLink, "h", outside)}}, nil},
		"a hard link by a link": {[][]file{{link(tar.TypeSymlink, "d", dir), link(tar.TypeLink, "h", "d/victim")}}, nil},
		"links in a circle":     {[][]file{{link(tar.TypeSymlink, "a", "b"), link(tar.TypeSymlink, "b", "a"), reg("a/x", "")}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s, r := newStore(t), newServer(t)
			var layers []v1.Layer
			for _, l := range c.layers {
				layers = append(layers, layerOf(t, l...))
			}
			_, err := s.Pull(t.Context(), r.push(t, "evil:1", imageOf(t, layers)), "", quiet)
			switch {
			case c.want == nil && (fault.KindOf(err) != fault.Invalid || fault.BlameOf(err) != fault.Image):
				t.Errorf("%v, want it refused", err)
			case c.want != nil && err != nil:
				t.Error(err)
			case c.want != nil:
				same(t, contents(t, s, r.ref("evil:1")), c.want)
			}
			if got, err := os.ReadFile(outside); err != nil || string(got) != "untouched" {
				t.Errorf("the host's file is %q, %v", got, err)
			}
			unfinished(t, s)
		})
	}
}

// TestLyingSizes has headers that promise what does not come.
func TestLyingSizes(t *testing.T) {
	header := func(n int64) []byte {
		var buf bytes.Buffer
		if err := tar.NewWriter(&buf).WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "f", Size: n, Format: tar.FormatPAX}); err != nil {
			t.Fatal(err)
		}
		return buf.Bytes()
	}
	for name, data := range map[string][]byte{
		"a terabyte":    append(header(1<<40), "x"...),
		"a little more": append(header(1000), make([]byte, 512)...),
		"all there is":  append(header(1<<62), "x"...),
		"a broken PAX":  append(archiveOf(t, file{tar.Header{Typeflag: tar.TypeReg, Name: "f", PAXRecords: map[string]string{"SCHILY.xattr.user.a": strings.Repeat("x", 100<<10)}}, ""}), 'x'),
	} {
		s := newStore(t)
		if _, err := s.ImportStream(t.Context(), bytes.NewReader(data), "x", quiet); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: %v, want invalid", name, err)
		}
		unfinished(t, s)
	}
}

// TestBomb expands to much more than there is room for. It stops in time.
func TestBomb(t *testing.T) {
	data := []byte(gzipOf(t, archiveOf(t, reg("bomb", strings.Repeat("not zero", 4<<20)))))
	if len(data) > 1<<20 {
		t.Fatalf("the bomb has %d bytes", len(data))
	}
	s := newStore(t, func(o *Options) { o.Quota = 2 * size.MiB })
	if _, err := s.ImportStream(t.Context(), bytes.NewReader(data), "x", quiet); fault.KindOf(err) != fault.Exhausted {
		t.Errorf("%v, want exhausted", err)
	}
	unfinished(t, s)
}

// TestMillionEntries has more names than an image may have. It is refused while it is
// read.
func TestMillionEntries(t *testing.T) {
	if os.Getenv("AEGIS_STRESS") != "1" {
		t.Skip("a million entries: AEGIS_STRESS=1")
	}
	r, end := pipe(t, func(tw *tar.Writer) error {
		for i := range 1<<20 + 10 {
			if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("d%d/f%d", i/1000, i), Format: tar.FormatPAX}); err != nil {
				return err
			}
		}
		return nil
	})
	defer end()
	s := newStore(t)
	peak := peakOf(func() {
		if _, err := s.ImportStream(t.Context(), r, "x", quiet); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%v, want invalid", err)
		}
	})
	t.Logf("a million names took %v of memory", size.Bytes(peak))
	if peak > 1<<30 {
		t.Errorf("a million names took %v of memory", size.Bytes(peak))
	}
	unfinished(t, s)
}

// FuzzImport feeds archives of all forms to the way that images come in.
func FuzzImport(f *testing.F) {
	img, _ := sample(f)
	dir := f.TempDir()
	saved := filepath.Join(dir, "saved.tar")
	saveTo(f, saved, "app:1", img)
	oci := filepath.Join(dir, "oci")
	layoutIn(f, oci, img)
	data, err := os.ReadFile(saved)
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][]byte{
		data, tarDir(f, oci), []byte(gzipOf(f, data)),
		archiveOf(f, reg("a/b", "c"), link(tar.TypeLink, "h", "a/b"), link(tar.TypeSymlink, "l", "../a")),
		archiveOf(f, reg("manifest.json", `[{"Config":"c","RepoTags":["x"],"Layers":["l"]}]`), reg("c", `{"rootfs":{"diff_ids":[]}}`)),
		[]byte(gzipOf(f, data))[:len(gzipOf(f, data))/2],
		{0x28, 0xb5, 0x2f, 0xfd, 0x04, 0, 0x41, 0, 0, 'x'},
	} {
		f.Add(seed)
	}
	s := newStore(f, func(o *Options) { o.Quota = 16 * size.MiB })
	f.Fuzz(func(t *testing.T, data []byte) {
		images, err := s.ImportStream(t.Context(), bytes.NewReader(data), "x", quiet)
		if err != nil {
			if fault.KindOf(err) == fault.Internal {
				t.Errorf("%v: nobody foresaw it", err)
			}
			unfinished(t, s)
			return
		}
		for _, i := range images {
			rootContents(t, s, i.Root)
		}
		if _, err := s.Remove(t.Context(), "x", true); err != nil {
			t.Error(err)
		}
	})
}
