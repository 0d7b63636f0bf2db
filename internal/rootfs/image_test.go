package rootfs

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/paths"
	"github.com/xfeldman/aegisvm/internal/size"
)

func newHome(t *testing.T) paths.Home {
	t.Helper()
	home := paths.Home(filepath.Join(t.TempDir(), "home"))
	if err := home.Create(); err != nil {
		t.Fatal(err)
	}
	return home
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func mustBuildImage(t *testing.T, home paths.Home) Image {
	t.Helper()
	img, err := BuildImage(t.Context(), home, Image{Name: "base", Recipe: "r1", Env: []string{"PATH=/bin"}},
		archiveOf(t, file("etc/hostname", 0o644, "x\n"), link(tar.TypeSymlink, "bin", "usr/bin")))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestBuildAndLoad(t *testing.T) {
	home := newHome(t)
	built := mustBuildImage(t, home)
	loaded, err := LoadImage(home, "base")
	if err != nil {
		t.Fatal(err)
	}
	if loaded.Digest != built.Digest || loaded.Path != built.Path || loaded.Size == 0 || !slices.Equal(loaded.Env, []string{"PATH=/bin"}) {
		t.Errorf("loaded %+v, built %+v", loaded, built)
	}
	if got := names(t, home.Images()); !slices.Equal(got, []string{"base.erofs", "base.json"}) {
		t.Errorf("the folder holds %v", got)
	}
}

func TestAFileOfAnotherSizeIsNoImage(t *testing.T) {
	home := newHome(t)
	img := mustBuildImage(t, home)
	if err := os.Chmod(img.Path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(img.Path, 100); err != nil {
		t.Fatal(err)
	}
	_, err := LoadImage(home, "base")
	if fault.KindOf(err) != fault.NotFound || fault.HintOf(err) == "" {
		t.Errorf("LoadImage: %v, hint %q", err, fault.HintOf(err))
	}
}

// failing ends with an error after a complete archive.
type failing struct {
	io.Reader
	err error
}

func (f *failing) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		err = f.err
	}
	return n, err
}

func TestAnArchiveThatEndsBadlyLeavesNothing(t *testing.T) {
	home := newHome(t)
	wrong := errors.New("the program failed")
	_, err := BuildImage(t.Context(), home, Image{Name: "base"}, &failing{archiveOf(t, file("a", 0o644, "a")), wrong})
	if !errors.Is(err, wrong) {
		t.Errorf("BuildImage: %v, want the reader's error", err)
	}
	if got := names(t, home.Images()); len(got) != 0 {
		t.Errorf("the folder holds %v", got)
	}
}

func TestExportAndImport(t *testing.T) {
	home, cache := newHome(t), t.TempDir()
	img := mustBuildImage(t, home)
	if err := Export(home, "base", cache); err != nil {
		t.Fatal(err)
	}
	other := newHome(t)
	if _, err := Import(other, "base", "r2", cache); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an image of another recipe: %v, want not exist", err)
	}
	got, err := Import(other, "base", "r1", cache)
	if err != nil || got.Digest != img.Digest || got.Path == img.Path {
		t.Errorf("Import: %+v, %v", got, err)
	}

	// One changed byte.
	cached := filepath.Join(cache, "base.erofs")
	data, err := os.ReadFile(cached)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-1] ^= 1
	if err := errors.Join(os.Remove(cached), os.WriteFile(cached, data, 0o600)); err != nil {
		t.Fatal(err)
	}
	third := newHome(t)
	if _, err := Import(third, "base", "r1", cache); err == nil || !strings.Contains(err.Error(), "digest") {
		t.Errorf("a changed image: %v, want a word about its digest", err)
	}
	if got := names(t, third.Images()); len(got) != 0 {
		t.Errorf("the folder holds %v", got)
	}
}

func TestInstanceDisk(t *testing.T) {
	if _, err := LookProgram("mke2fs"); err != nil {
		t.Skip("this host has no mke2fs")
	}
	home := newHome(t)
	path := filepath.Join(home.Instances(), "disk")
	if err := CreateDisk(home, path, 0); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("without a template: %v, want unavailable", err)
	}
	for range 2 {
		if err := EnsureTemplate(t.Context(), home); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []size.Bytes{TemplateSize, 20 * size.GiB} {
		if err := CreateDisk(home, path, want); err != nil {
			t.Fatal(err)
		}
		fi, err := os.Stat(path)
		if err != nil || size.Bytes(fi.Size()) != want {
			t.Fatalf("the disk has %d bytes, %v, want %d", fi.Size(), err, want)
		}
		if st, ok := fi.Sys().(*syscall.Stat_t); ok && st.Blocks*512 > 16<<20 {
			t.Errorf("the disk occupies %d MB", st.Blocks*512>>20)
		}
		if fsck, err := LookProgram("e2fsck"); err == nil {
			if out, err := exec.Command(fsck, "-fn", path).CombinedOutput(); err != nil {
				t.Errorf("e2fsck: %v\n%s", err, out)
			}
		}
		if err := CreateDisk(home, path, want); !errors.Is(err, fs.ErrExist) {
			t.Errorf("over another disk: %v, want that it exists", err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCopySparse(t *testing.T) {
	dir := t.TempDir()
	src, dst := filepath.Join(dir, "src"), filepath.Join(dir, "dst")
	f, err := os.Create(src)
	if err != nil {
		t.Fatal(err)
	}
	const length = 64 << 20
	for at, text := range map[int64]string{0: "start", 10 << 20: "middle", 40<<20 + 5: "odd"} {
		if _, err := f.WriteAt([]byte(text), at); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(f.Truncate(length), f.Close(), CopySparse(src, dst)); err != nil {
		t.Fatal(err)
	}
	a, errA := os.ReadFile(src)
	b, errB := os.ReadFile(dst)
	if errA != nil || errB != nil || string(a) != string(b) {
		t.Errorf("the copy differs: %v, %v", errA, errB)
	}
	fi, err := os.Stat(dst)
	if err != nil {
		t.Fatal(err)
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok && st.Blocks*512 > 4<<20 {
		t.Errorf("the copy occupies %d KB", st.Blocks/2)
	}
	if err := CopySparse(filepath.Join(dir, "none"), filepath.Join(dir, "x")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("copy of nothing: %v", err)
	}
}

func TestDiskFull(t *testing.T) {
	err := DiskFull(&fs.PathError{Op: "write", Path: "/x", Err: syscall.ENOSPC})
	if fault.KindOf(err) != fault.Exhausted || fault.BlameOf(err) != fault.Host || fault.HintOf(err) == "" {
		t.Errorf("a full disk is %s by %s, hint %q", fault.KindOf(err), fault.BlameOf(err), fault.HintOf(err))
	}
	if err := DiskFull(fs.ErrExist); !errors.Is(err, fs.ErrExist) || fault.KindOf(err) != fault.Internal {
		t.Errorf("another error became %v", err)
	}
	if DiskFull(nil) != nil {
		t.Error("no error became one")
	}
}
