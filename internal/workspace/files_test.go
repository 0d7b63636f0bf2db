package workspace

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
)

// planted is a workspace in which a guest has planted what leads out of it, beside a
// folder that nobody may see or change.
func planted(t *testing.T) (f *Files, dir string) {
	t.Helper()
	s, _ := newStore(t)
	top := t.TempDir()
	dir = filepath.Join(top, "ws")
	other := filepath.Join(top, "ws-other")
	for _, d := range []string{dir, other, filepath.Join(dir, "sub")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	secret := filepath.Join(other, "secret")
	for _, path := range []string{secret, filepath.Join(dir, "file"), filepath.Join(dir, "sub/inner")} {
		if err := os.WriteFile(path, []byte("text"), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{
		"abs": other, "rel": "../ws-other", "file-abs": secret, "root": "/", "up": "..", "loop": "loop", "inside": "sub", "file-inside": "sub/inner",
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		list, err := os.ReadDir(other)
		if b, _ := os.ReadFile(secret); err != nil || len(list) != 1 || string(b) != "text" {
			t.Errorf("outside: %v, %q, %v", list, b, err)
		}
	})
	f, err := s.OpenFiles(id, Spec{Workspace: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f, dir
}

// ways out of the workspace.
var ways = []string{"..", "../ws-other", "../ws-other/secret", "/../ws-other/secret", "sub/../../ws-other/secret", "abs/secret", "rel/secret", "file-abs", "root/etc/passwd", "up/ws-other/secret", "sub/\x00"}

func TestNothingOutside(t *testing.T) {
	f, _ := planted(t)
	for _, p := range ways {
		_, err := f.Read(p)
		wantKind(t, "read "+p, err, fault.Denied)
		wantKind(t, "write "+p, f.Write(p, strings.NewReader("evil")), fault.Denied)
		wantKind(t, "make in "+p, f.Write(p+"/new", strings.NewReader("evil")), fault.Denied)
	}
	for _, p := range []string{"abs", "rel", "root", "up", "..", "/.."} {
		_, err := f.Tree(p)
		wantKind(t, "tree "+p, err, fault.Denied)
	}
}

func TestTreeAndFiles(t *testing.T) {
	f, dir := planted(t)
	for _, p := range []string{"", "/", ".", "sub/.."} {
		tree, err := f.Tree(p)
		if err != nil || len(tree) != 11 {
			t.Fatalf("%q: %v, %v", p, tree, err)
		}
		if want := (instance.Entry{Name: "file", Size: 4}); tree[1] != want {
			t.Errorf("%+v, want %+v", tree[1], want)
		}
		if want := (instance.Entry{Name: "sub", IsDir: true}); tree[9] != want {
			t.Errorf("%+v, want %+v", tree[9], want)
		}
	}
	for _, p := range []string{"inside", "sub/", "/sub"} {
		if tree, err := f.Tree(p); err != nil || !reflect.DeepEqual(tree, []instance.Entry{{Name: "inner", Size: 4}}) {
			t.Errorf("%s: %v, %v", p, tree, err)
		}
	}
	for p, kind := range map[string]fault.Kind{
		"no": fault.NotFound, "no/way": fault.NotFound, "sub": fault.Invalid, "file/x": fault.Invalid, "pipe": fault.Invalid, "loop": fault.Invalid,
		strings.Repeat("x", 300): fault.Invalid, "": fault.Invalid,
	} {
		_, err := f.Read(p)
		wantKind(t, "read "+p, err, kind)
		if p == "no" || p == "no/way" {
			continue
		}
		wantKind(t, "write "+p, f.Write(p, strings.NewReader("x")), kind)
	}
	for _, p := range []string{"file", "pipe"} {
		_, err := f.Tree(p)
		wantKind(t, "tree "+p, err, fault.Invalid)
	}
	for _, p := range []string{"new", "a/b/c/new", "file", "file-inside", "/sub/inner"} {
		if err := f.Write(p, strings.NewReader(p)); err != nil {
			t.Errorf("write %s: %v", p, err)
		}
		if b, err := f.Read(p); err != nil || string(b) != p {
			t.Errorf("read %s: %q, %v", p, b, err)
		}
	}
	if fi, err := os.Stat(filepath.Join(dir, "file")); err != nil || fi.Mode().Perm() != 0o640 {
		t.Errorf("the mode of a file that was written: %v, %v", fi, err)
	}
	// A body that breaks leaves the file as it was.
	if err := f.Write("new", iotest.TimeoutReader(strings.NewReader(strings.Repeat("x", 5000)))); err == nil {
		t.Error("a body that broke")
	}
	if b, _ := f.Read("new"); string(b) != "new" {
		t.Errorf("%q", b)
	}
}

func TestLimits(t *testing.T) {
	f, dir := planted(t)
	most := bytes.Repeat([]byte("x"), MaxFile)
	if err := f.Write("most", bytes.NewReader(most)); err != nil {
		t.Error(err)
	}
	if b, err := f.Read("most"); err != nil || len(b) != MaxFile {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	wantKind(t, "write more", f.Write("most", bytes.NewReader(append(most, 1))), fault.TooLarge)
	if err := os.WriteFile(filepath.Join(dir, "most"), append(most, 1), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := f.Read("most")
	wantKind(t, "read more", err, fault.TooLarge)
	for i := range MaxTree - 1 {
		name := filepath.Join(dir, "sub", strings.Repeat("n", i/200+1)+string(rune('a'+i%200)))
		if err := os.Mkdir(name, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if tree, err := f.Tree("sub"); err != nil || len(tree) != MaxTree {
		t.Errorf("%d entries, %v", len(tree), err)
	}
	_ = os.Mkdir(filepath.Join(dir, "sub/one-more"), 0o700)
	_, err = f.Tree("sub")
	wantKind(t, "a tree of more", err, fault.TooLarge)
}

func TestReadOnly(t *testing.T) {
	s, _ := newStore(t)
	f, err := s.OpenFiles(id, Spec{Workspace: "named", ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // of a test
	wantKind(t, "write", f.Write("x", strings.NewReader("x")), fault.Denied)
	_, err = f.PutBlob(strings.NewReader("GIF89a"))
	wantKind(t, "blob", err, fault.Denied)
	if list, err := f.Tree(""); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
}

func TestBlobs(t *testing.T) {
	f, dir := planted(t)
	for text, want := range map[string]struct{ media, ext string }{
		"\x89PNG\r\n\x1a\nrest": {"image/png", ".png"}, "\xff\xd8\xff\xe0rest": {"image/jpeg", ".jpg"}, "GIF87a": {"image/gif", ".gif"},
		"GIF89arest": {"image/gif", ".gif"}, "RIFF\x00\x00\x00\x00WEBPrest": {"image/webp", ".webp"},
	} {
		sum := sha256.Sum256([]byte(text))
		wanted := instance.Blob{Blob: hex.EncodeToString(sum[:]) + want.ext, MediaType: want.media, Size: int64(len(text))}
		for range 2 {
			got, err := f.PutBlob(strings.NewReader(text))
			if err != nil || got != wanted {
				t.Errorf("%q: %+v, %v; want %+v", text, got, err, wanted)
			}
			if b, err := f.Read(BlobDir + "/" + got.Blob); err != nil || string(b) != text {
				t.Errorf("%q is kept as %q, %v", text, b, err)
			}
			// What a guest puts in its place does not stay, and is not followed.
			path := filepath.Join(dir, BlobDir, got.Blob)
			if err := errors.Join(os.Remove(path), os.Symlink("../../../ws-other/secret", path)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, text := range []string{"", "<svg></svg>", "GIF", "RIFF\x00\x00\x00\x00WAVE", "%PDF-1.4", "\x89PNG"} {
		_, err := f.PutBlob(strings.NewReader(text))
		wantKind(t, text, err, fault.Invalid)
	}
	_, err := f.PutBlob(io.MultiReader(strings.NewReader("GIF89a"), bytes.NewReader(make([]byte, MaxFile))))
	wantKind(t, "a large one", err, fault.TooLarge)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := f.PutBlob(strings.NewReader("GIF89a again")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	list, err := os.ReadDir(filepath.Join(dir, BlobDir))
	if err != nil || len(list) != 6 {
		t.Errorf("%v, %v", list, err)
	}
	if err := errors.Join(os.RemoveAll(filepath.Join(dir, ".aegis")), os.Symlink("../ws-other", filepath.Join(dir, ".aegis"))); err != nil {
		t.Fatal(err)
	}
	_, err = f.PutBlob(strings.NewReader("GIF89a"))
	wantKind(t, "a store that leads outside", err, fault.Denied)
}

// TestOwnerOfFiles: what a daemon that is root makes belongs to the folder's owner.
func TestOwnerOfFiles(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only for root")
	}
	f, dir := planted(t)
	if err := os.Chown(dir, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	if err := f.Write("made/by/root", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.PutBlob(strings.NewReader("GIF89a")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"made", "made/by", "made/by/root", ".aegis", ".aegis/blobs"} {
		fi, err := os.Lstat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if st := fi.Sys().(*syscall.Stat_t); st.Uid != 12345 || st.Gid != 12345 {
			t.Errorf("%s is %d:%d's", name, st.Uid, st.Gid)
		}
	}
}

// FuzzPaths: no path that anybody can think of leads out.
func FuzzPaths(f *testing.F) {
	for _, w := range ways {
		f.Add(w)
	}
	f.Add("a/b/../c")
	f.Fuzz(func(t *testing.T, p string) {
		name, err := local(p)
		if err != nil {
			return
		}
		if !filepath.IsLocal(name) || strings.ContainsRune(name, 0) {
			t.Fatalf("%q becomes %q", p, name)
		}
	})
}
