package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/compression"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
)

// sample is an image of two layers, and what is in it.
func sample(tb testing.TB) (v1.Image, map[string]string) {
	tb.Helper()
	img := imageOf(tb, []v1.Layer{
		layerOf(tb, reg("a", "lower"), reg("b", "b")),
		packed(tb, compression.ZStd, reg("a", "upper"), reg(".wh.b", ""), reg("c", "c")),
	}, func(c *v1.ConfigFile) { c.Config.Env = []string{"K=v"} })
	return img, map[string]string{"a": "upper", "c": "c"}
}

// saveTo writes what `docker save` writes.
func saveTo(tb testing.TB, path, ref string, img v1.Image) {
	tb.Helper()
	tag, err := name.NewTag(ref)
	if err != nil {
		tb.Fatal(err)
	}
	if err := tarball.WriteToFile(path, tag, img); err != nil {
		tb.Fatal(err)
	}
}

// layoutIn writes an OCI layout.
func layoutIn(tb testing.TB, dir string, img v1.Image, opts ...layout.Option) {
	tb.Helper()
	l, err := layout.Write(dir, empty.Index)
	if err == nil {
		err = l.AppendImage(img, opts...)
	}
	if err != nil {
		tb.Fatal(err)
	}
}

// tarDir packs a folder, in the order of its names.
func tarDir(tb testing.TB, dir string) []byte {
	tb.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := errors.Join(w.AddFS(os.DirFS(dir)), w.Close()); err != nil {
		tb.Fatal(err)
	}
	return buf.Bytes()
}

func TestImportForms(t *testing.T) {
	img, want := sample(t)
	dir := t.TempDir()
	saved := filepath.Join(dir, "saved.tar")
	saveTo(t, saved, "some/app:1", img)
	oci := filepath.Join(dir, "oci")
	layoutIn(t, oci, img, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "some/app:1"}))
	unpacked := filepath.Join(dir, "unpacked")
	unpack(t, saved, unpacked)
	savedData, err := os.ReadFile(saved)
	if err != nil {
		t.Fatal(err)
	}
	ociTar := filepath.Join(dir, "oci.tar")
	writeFile(t, ociTar, string(tarDir(t, oci)))
	gz := filepath.Join(dir, "saved.tar.gz")
	writeFile(t, gz, gzipOf(t, savedData))
	id, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	for form, path := range map[string]string{
		"docker save": saved, "compressed": gz, "unpacked": unpacked, "layout": oci, "packed layout": ociTar,
	} {
		t.Run(form, func(t *testing.T) {
			s := newStore(t)
			images, err := s.Import(t.Context(), path, "", quiet)
			if err != nil {
				t.Fatal(err)
			}
			if len(images) != 1 || images[0].ID != id.String() || !slices.Equal(images[0].Names, []string{"some/app:1"}) {
				t.Errorf("imported %+v, want %s", images, id)
			}
			same(t, contents(t, s, "docker.io/some/app:1"), want)
			if _, err := s.Import(t.Context(), path, "mine", quiet); err != nil {
				t.Errorf("under another name: %v", err)
			}
			same(t, contents(t, s, "mine:latest"), want)
			if got := ids(t, s); len(got) != 1 {
				t.Errorf("there are %v", got)
			}
			unfinished(t, s)
		})
	}
	t.Run("stream", func(t *testing.T) {
		s := newStore(t)
		if _, err := s.ImportStream(t.Context(), bytes.NewReader(savedData), "", quiet); err != nil {
			t.Fatal(err)
		}
		same(t, contents(t, s, "some/app:1"), want)
		unfinished(t, s)
	})
}

func unpack(tb testing.TB, archive, dir string) {
	tb.Helper()
	f, err := os.Open(archive)
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if err := os.Mkdir(dir, 0o700); err != nil {
		tb.Fatal(err)
	}
	for in := tar.NewReader(f); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			tb.Fatal(err)
		}
		data, err := io.ReadAll(in)
		if err != nil {
			tb.Fatal(err)
		}
		writeFile(tb, filepath.Join(dir, h.Name), string(data))
	}
}

func gzipOf(tb testing.TB, data []byte) string {
	tb.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(data); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return buf.String()
}

func TestImportRoots(t *testing.T) {
	s := newStore(t)
	plain := archiveOf(t, reg("./bin/app", "binary"), file{tar.Header{Typeflag: tar.TypeSymlink, Name: "./app", Linkname: "bin/app"}, ""})
	want := map[string]string{"bin/app": "binary", "app": fs.ModeSymlink.String()}
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for file, data := range map[string]string{
		"My App.tar": string(plain), "app.tar.gz": gzipOf(t, plain), "app2.tar.zst": string(z.EncodeAll(plain, nil)),
	} {
		writeFile(t, filepath.Join(dir, file), data)
	}
	for file, called := range map[string]string{"My App.tar": "my-app:latest", "app.tar.gz": "app:latest", "app2.tar.zst": "app2:latest"} {
		images, err := s.Import(t.Context(), filepath.Join(dir, file), "", quiet)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if len(images) != 1 || !slices.Contains(images[0].Names, called) {
			t.Errorf("%s is called %+v, want %s", file, images, called)
		}
		same(t, contents(t, s, called), want)
	}
	if _, err := s.ImportStream(t.Context(), bytes.NewReader(plain), "", quiet); fault.KindOf(err) != fault.Invalid || fault.HintOf(err) == "" {
		t.Errorf("a stream without a name: %v", err)
	}
	unfinished(t, s)
}

// TestImportFolder packs a folder with all that a user can make.
func TestImportFolder(t *testing.T) {
	s, dir := newStore(t), filepath.Join(t.TempDir(), "rootfs")
	for _, err := range []error{
		os.MkdirAll(filepath.Join(dir, "usr/bin"), 0o755), os.WriteFile(filepath.Join(dir, "usr/bin/app"), []byte("binary"), 0o700),
		os.Chmod(filepath.Join(dir, "usr/bin/app"), 0o4755|os.ModeSetuid), os.Symlink("usr/bin", filepath.Join(dir, "bin")),
		os.Link(filepath.Join(dir, "usr/bin/app"), filepath.Join(dir, "usr/bin/app2")), syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Import(t.Context(), dir, "", quiet); err != nil {
		t.Fatal(err)
	}
	same(t, contents(t, s, "rootfs"), map[string]string{
		"usr/bin/app": "binary", "usr/bin/app2": "binary", "bin": fs.ModeSymlink.String(), "pipe": fs.ModeNamedPipe.String(),
	})
}

func TestImportMistakes(t *testing.T) {
	img, _ := sample(t)
	dir := t.TempDir()
	saved := filepath.Join(dir, "saved.tar")
	saveTo(t, saved, "app:1", img)
	junk, nothing, cut := filepath.Join(dir, "junk"), filepath.Join(dir, "nothing"), filepath.Join(dir, "cut.tar.gz")
	writeFile(t, junk, strings.Repeat("junk", 1000))
	writeFile(t, nothing, "")
	whole := gzipOf(t, archiveOf(t, reg("f", noise(1, 100<<10))))
	writeFile(t, cut, whole[:len(whole)/2])
	foreign := filepath.Join(dir, "foreign.tar")
	saveTo(t, foreign, "app:1", imageOf(t, nil, func(c *v1.ConfigFile) { c.Architecture = "s390x" }))
	s := newStore(t)
	for name, c := range map[string]struct {
		path, as string
		want     fault.Kind
	}{
		"not there":     {filepath.Join(dir, "no"), "", fault.NotFound},
		"relative":      {"saved.tar", "", fault.Invalid},
		"junk":          {junk, "", fault.Invalid},
		"nothing":       {nothing, "x", fault.Invalid},
		"cut off":       {cut, "x", fault.Invalid},
		"bad name":      {saved, "UPPER/case:1", fault.Invalid},
		"name of base":  {saved, "base", fault.Conflict},
		"name digest":   {saved, "app@sha256:" + strings.Repeat("0", 64), fault.Invalid},
		"other machine": {foreign, "", fault.Invalid},
	} {
		_, err := s.Import(t.Context(), c.path, c.as, quiet)
		if fault.KindOf(err) != c.want || fault.HintOf(err) == "" {
			t.Errorf("%s: %v (%s, hint %q), want %s", name, err, fault.KindOf(err), fault.HintOf(err), c.want)
		}
	}
	if got := ids(t, s); len(got) != 0 {
		t.Errorf("there is %v", got)
	}
	unfinished(t, s)
}

// TestLyingArchives has layers and descriptions that are not what they are said to be.
func TestLyingArchives(t *testing.T) {
	layer := archiveOf(t, reg("f", "f"))
	good := fmt.Sprintf(`{"architecture":"","os":"linux","rootfs":{"type":"layers","diff_ids":[%q]}}`, digestOf(layer))
	save := func(config string, layers ...string) []byte {
		list, err := json.Marshal([]map[string]any{{"Config": "c.json", "RepoTags": []string{"x:1"}, "Layers": layers}})
		if err != nil {
			t.Fatal(err)
		}
		return archiveOf(t, reg("manifest.json", string(list)), reg("c.json", config), reg("l.tar", string(layer)),
			reg("other.tar", string(archiveOf(t, reg("f", "other")))),
			file{tar.Header{Typeflag: tar.TypeSymlink, Name: "d/link.tar", Linkname: "../l.tar"}, ""},
			file{tar.Header{Typeflag: tar.TypeSymlink, Name: "loop.tar", Linkname: "loop.tar"}, ""},
			file{tar.Header{Typeflag: tar.TypeSymlink, Name: "out.tar", Linkname: "../../../../etc/passwd"}, ""})
	}
	many := make([]string, maxLayers+1)
	for name, data := range map[string][]byte{
		"another layer": save(good, "other.tar"), "too few": save(good), "a loop": save(good, "loop.tar"),
		"outside": save(good, "out.tar"), "absolute": save(good, "/etc/passwd"), "no layer": save(good, "none.tar"),
		"too many": save(good, many...), "no digest": save(strings.Replace(good, "sha256:", "md5:", 1), "l.tar"),
		"no JSON": save("{", "l.tar"), "huge environment": save(strings.Replace(good, "{", `{"config":{"Env":["A=`+strings.Repeat("x", 200<<10)+`"]},`, 1), "l.tar"),
		"no list":         archiveOf(t, reg("manifest.json", "{}")),
		"no description":  archiveOf(t, reg("manifest.json", `[{"Config":"none.json"}]`)),
		"huge":            archiveOf(t, reg("manifest.json", `[{"Config":"huge.json"}]`), reg("huge.json", strings.Repeat(" ", maxDocument+1))),
		"an empty layout": archiveOf(t, reg("oci-layout", "{}"), reg("index.json", "{}")),
		"wrong blob":      archiveOf(t, reg("oci-layout", "{}"), reg("index.json", `{"manifests":[{"digest":"sha256:`+strings.Repeat("0", 64)+`"}]}`), reg("blobs/sha256/"+strings.Repeat("0", 64), "{}")),
		"climbing blob":   archiveOf(t, reg("oci-layout", "{}"), reg("index.json", `{"manifests":[{"digest":"sha256:../../../x"}]}`)),
	} {
		s := newStore(t)
		if _, err := s.ImportStream(t.Context(), bytes.NewReader(data), "", quiet); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: %v, want invalid", name, err)
		}
		if got := ids(t, s); len(got) != 0 {
			t.Errorf("%s: there is %v", name, got)
		}
		unfinished(t, s)
	}
	s := newStore(t)
	if _, err := s.ImportStream(t.Context(), bytes.NewReader(save(good, "d/link.tar")), "", quiet); err != nil {
		t.Errorf("a layer by a link: %v", err)
	}
	same(t, contents(t, s, "x:1"), map[string]string{"f": "f"})
}

// TestFolderIsNotLeft has a layout whose files are links to elsewhere.
func TestFolderIsNotLeft(t *testing.T) {
	img, _ := sample(t)
	dir := filepath.Join(t.TempDir(), "oci")
	layoutIn(t, dir, img)
	blobs, err := filepath.Glob(filepath.Join(dir, "blobs/sha256/*"))
	if err != nil {
		t.Fatal(err)
	}
	outside := t.TempDir()
	for _, b := range blobs {
		moved := filepath.Join(outside, filepath.Base(b))
		if err := errors.Join(os.Rename(b, moved), os.Symlink(moved, b)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := newStore(t).Import(t.Context(), dir, "x", quiet); err == nil {
		t.Error("files outside of the folder were read")
	}
}

// TestSeveralImages imports an archive with more than one.
func TestSeveralImages(t *testing.T) {
	one, _ := sample(t)
	two := imageOf(t, []v1.Layer{layerOf(t, reg("two", "2"))})
	var tags []name.Tag
	for _, n := range []string{"app:1", "app:2"} {
		tag, err := name.NewTag(n)
		if err != nil {
			t.Fatal(err)
		}
		tags = append(tags, tag)
	}
	path := filepath.Join(t.TempDir(), "saved.tar")
	if err := tarball.MultiWriteToFile(path, map[name.Tag]v1.Image{tags[0]: one, tags[1]: two}); err != nil {
		t.Fatal(err)
	}
	s := newStore(t)
	images, err := s.Import(t.Context(), path, "", quiet)
	if err != nil || len(images) != 2 {
		t.Fatalf("%+v, %v, want two", images, err)
	}
	same(t, contents(t, s, "app:2"), map[string]string{"two": "2"})
	if _, err := s.Import(t.Context(), path, "x", quiet); fault.KindOf(err) != fault.Invalid {
		t.Errorf("one name for two: %v", err)
	}
}

func TestBaseIsAnImage(t *testing.T) {
	s := newStore(t)
	base, release, err := s.Resolve(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	release()
	all, err := s.List(t.Context())
	if err != nil || len(all) != 1 || !all[0].Default || !slices.Equal(all[0].Names, []string{"base"}) || all[0].ID != base.ID {
		t.Fatalf("%+v, %v", all, err)
	}
	if _, err := s.Prune(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	same(t, contents(t, s, "base"), map[string]string{"etc/hostname": ""})
	if _, err := s.Remove(t.Context(), "base", true); fault.KindOf(err) != fault.Conflict {
		t.Errorf("the default image is removed: %v", err)
	}
}

func TestDefaultByConfiguration(t *testing.T) {
	s := newStore(t, func(o *Options) { o.Default = "mine:1" })
	if _, _, err := s.Resolve(t.Context(), "", instance.PullNever); fault.KindOf(err) != fault.NotFound {
		t.Errorf("before it is here: %v", err)
	}
	if _, err := s.ImportStream(t.Context(), bytes.NewReader(archiveOf(t, reg("f", "f"))), "mine:1", quiet); err != nil {
		t.Fatal(err)
	}
	same(t, contents(t, s, ""), map[string]string{"f": "f"})
}

// TestCommit lays changes on an image.
func TestCommit(t *testing.T) {
	s := newStore(t)
	img, _ := sample(t)
	path := filepath.Join(t.TempDir(), "saved.tar")
	saveTo(t, path, "app:1", img)
	if _, err := s.Import(t.Context(), path, "", quiet); err != nil {
		t.Fatal(err)
	}
	base, release, err := s.Resolve(t.Context(), "app:1", "")
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	changes := archiveOf(t, reg("./new", "new"), reg("./.wh.a", ""), reg("./etc/hostname", "box"), reg("./etc/keep", "kept"))
	made, err := s.Commit(t.Context(), base, "app:2", bytes.NewReader(changes))
	if err != nil {
		t.Fatal(err)
	}
	same(t, contents(t, s, "app:2"), map[string]string{"c": "c", "new": "new", "etc/keep": "kept"})
	same(t, contents(t, s, "app:1"), map[string]string{"a": "upper", "c": "c"})
	if made.ID == base.ID || !slices.Equal(made.Env, base.Env) {
		t.Errorf("made %+v of %+v", made, base)
	}
	broken := io.MultiReader(bytes.NewReader(changes[:700]), failing{})
	if _, err := s.Commit(t.Context(), base, "app:3", broken); err == nil {
		t.Error("a copy that broke off was taken for whole")
	}
	if _, err := s.Commit(t.Context(), base, "BAD NAME", bytes.NewReader(changes)); fault.KindOf(err) != fault.Invalid {
		t.Errorf("a bad name: %v", err)
	}
	unfinished(t, s)
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("it broke") }

// TestCanceledImport leaves nothing.
func TestCanceledImport(t *testing.T) {
	s := newStore(t)
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	go func() {
		data := archiveOf(t, reg("f", noise(1, 1<<20)))
		_, _ = w.Write(data[:500<<10])
		cancel()
		_, _ = w.Write(data[500<<10:])
		_ = w.Close()
	}()
	defer func() { _ = r.Close() }()
	if _, err := s.ImportStream(ctx, r, "x", quiet); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	_ = r.Close()
	unfinished(t, s)
}
