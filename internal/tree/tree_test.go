package tree

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
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
	"time"
)

// build makes a tree with one of everything in a new folder and returns its path.
func build(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "src")
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	do(os.MkdirAll(in("sub/deep/empty"), 0o755))
	do(os.WriteFile(in("file"), []byte("hello"), 0o640))
	do(os.WriteFile(in("empty"), nil, 0o600))
	do(os.WriteFile(in("big"), bytes.Repeat([]byte("0123456789abcdef"), 3<<16), 0o644)) // 3 MB
	do(os.WriteFile(in("sub/exec"), []byte("#!/bin/sh\n"), 0o755))
	do(os.Chmod(in("sub/exec"), 0o755|fs.ModeSetuid|fs.ModeSetgid))
	do(os.WriteFile(in("sub/readonly"), []byte("r"), 0o400))
	do(os.WriteFile(in("sub/name with \n newline and \xff"), []byte("n"), 0o644))
	do(os.WriteFile(in("sub/"+strings.Repeat("long", 60)), []byte("l"), 0o644))
	do(os.Link(in("file"), in("sub/deep/hard")))
	do(os.Symlink("file", in("soft")))
	do(os.Symlink("/no/such/place", in("sub/dangling")))
	do(os.Symlink("../..", in("sub/deep/up")))
	do(os.Chmod(in("sub/deep/empty"), 0o500))
	do(os.Chmod(in("sub/deep"), 0o777|fs.ModeSticky))
	when := time.Date(2001, 2, 3, 4, 5, 6, 789000000, time.UTC)
	for _, name := range []string{"file", "big", "sub/deep/empty", "sub/deep", "sub", "."} {
		do(os.Chtimes(in(name), when, when))
	}
	return dir
}

// describe returns what a tree is, a line for each file.
func describe(t *testing.T, root string) string {
	t.Helper()
	var lines []string
	inodes := map[uint64]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		line := fmt.Sprintf("%q %v", rel, fi.Mode())
		st := fi.Sys().(*syscall.Stat_t)
		switch {
		case fi.Mode().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %x %v", sha256.Sum256(b), fi.ModTime().UTC())
			if st.Nlink > 1 {
				if first, ok := inodes[st.Ino]; ok {
					line += " = " + first
				} else {
					inodes[st.Ino] = rel
				}
			}
		case fi.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line = fmt.Sprintf("%q -> %q", rel, to)
		default:
			line += " " + fi.ModTime().UTC().String()
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

// carry copies with Pack and Unpack, as cp does.
func carry(from, to string, opts Options) error {
	src, err := OpenSource(from)
	if err != nil {
		return err
	}
	dst, err := OpenTarget(to)
	if err != nil {
		return errors.Join(err, src.Close())
	}
	r, w := io.Pipe()
	packed := make(chan error, 1)
	go func() { packed <- w.CloseWithError(src.Pack(w, opts.Note)) }()
	err = dst.Unpack(r, opts)
	_ = r.Close()
	return errors.Join(err, <-packed, src.Close(), dst.Close())
}

func shut(t *testing.T, c io.Closer) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestRoundTrip(t *testing.T) {
	src := build(t)
	dst := filepath.Join(t.TempDir(), "dst")
	if err := carry(src, dst, Options{Owners: true, Setuid: true}); err != nil {
		t.Fatal(err)
	}
	if got, want := describe(t, dst), describe(t, src); got != want {
		t.Errorf("got\n%s\n\nwant\n%s", got, want)
	}
	// Again, over itself: whatever is there is replaced by the same.
	if err := carry(src+"/.", dst, Options{Owners: true, Setuid: true}); err != nil {
		t.Fatal(err)
	}
	got := describe(t, dst)
	if strings.Contains(got, ".aegis-cp-") {
		t.Errorf("temporary files are left:\n%s", got)
	}
}

func TestBitsOfForeignOwners(t *testing.T) {
	src := build(t)
	dst := filepath.Join(t.TempDir(), "dst")
	if err := carry(src, dst, Options{}); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(filepath.Join(dst, "sub/exec"))
	if err != nil || fi.Mode() != 0o755 {
		t.Errorf("mode %v, %v; want 0755 without set-user-ID", fi.Mode(), err)
	}
	if fi, err = os.Stat(filepath.Join(dst, "sub/deep")); err != nil || fi.Mode()&fs.ModeSticky == 0 {
		t.Errorf("the sticky bit is lost: %v, %v", fi.Mode(), err)
	}
}

// TestLanding is the table of where things land: docker cp's.
func TestLanding(t *testing.T) {
	for _, c := range []struct{ name, src, dst, want string }{
		{"file to nothing", "f", "new", "new"},
		{"file onto a file", "f", "old", "old"},
		{"file into a folder", "f", "dir", "dir/f"},
		{"file into a folder, slash", "f", "dir/", "dir/f"},
		{"file to a missing folder", "f", "new/", "!does not exist"},
		{"file below nothing", "f", "no/new", "!no such file"},
		{"file through a link to a folder", "f", "todir", "dir/f"},
		{"file through a link to a file", "f", "toold", "old"},
		{"file through a dangling link", "f", "tonothing", "!symlink to nothing"},
		{"file onto a slashed file", "f", "old/", "!not a directory"},
		{"folder to nothing", "d", "new", "new/x"},
		{"folder to nothing, slash", "d", "new/", "new/x"},
		{"folder into a folder", "d", "dir", "dir/d/x"},
		{"folder onto a file", "d", "old", "!is a file"},
		{"contents to nothing", "d/.", "new", "new/x"},
		{"contents into a folder", "d/.", "dir", "dir/x"},
		{"contents of a file", "f/.", "dir", "!not a directory"},
		{"folder with a slash", "d/", "dir", "dir/d/x"},
		{"link", "l", "dir", "dir/l"},
		{"link with a slash", "l/", "dir", "dir/l/x"},
		{"nothing", "no", "dir", "!no such file"},
		{"a pipe", "p", "dir", "!is a pipe"},
		{"onto a pipe", "f", "pipe", "!is a pipe"},
		{"empty", "", "dir", "!empty"},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			in := func(p string) string {
				if p == "" {
					return ""
				}
				return root + "/" + p // not filepath.Join: the end counts
			}
			for _, err := range []error{
				os.MkdirAll(in("s/d"), 0o755), os.Mkdir(in("dir"), 0o755),
				os.WriteFile(in("s/f"), []byte("new"), 0o644), os.WriteFile(in("s/d/x"), []byte("new"), 0o644),
				os.Symlink("d", in("s/l")), syscall.Mkfifo(in("s/p"), 0o600), syscall.Mkfifo(in("pipe"), 0o600),
				os.WriteFile(in("old"), []byte("old"), 0o600),
				os.Symlink("dir", in("todir")), os.Symlink("old", in("toold")), os.Symlink("none", in("tonothing")),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			src := c.src
			if src != "" {
				src = in("s/" + src)
			}
			err := carry(src, in(c.dst), Options{})
			if msg, fails := strings.CutPrefix(c.want, "!"); fails {
				if err == nil || !strings.Contains(err.Error(), msg) {
					t.Errorf("err = %v, want ...%s...", err, msg)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if c.src == "l" {
				if to, err := os.Readlink(in(c.want)); err != nil || to != "d" {
					t.Errorf("link to %q, %v", to, err)
				}
			} else if b, err := os.ReadFile(in(c.want)); err != nil || string(b) != "new" {
				t.Errorf("%s holds %q, %v", c.want, b, err)
			}
		})
	}
}

// TestExistingFolders keep their modes: /tmp must stay 1777.
func TestExistingFolders(t *testing.T) {
	src, dst := build(t), t.TempDir()
	if err := errors.Join(os.Mkdir(dst+"/sub", 0o700), os.Chmod(dst, 0o777|fs.ModeSticky)); err != nil {
		t.Fatal(err)
	}
	if err := carry(src+"/.", dst, Options{}); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]fs.FileMode{dst: fs.ModeDir | fs.ModeSticky | 0o777, dst + "/sub": fs.ModeDir | 0o700} {
		if fi, err := os.Stat(path); err != nil || fi.Mode() != want {
			t.Errorf("%s is %v, %v; want %v", path, fi.Mode(), err, want)
		}
	}
}

// TestReplaced shows that what stands in the way is replaced, not written into.
func TestReplaced(t *testing.T) {
	root := t.TempDir()
	in := func(p string) string { return filepath.Join(root, p) }
	for _, err := range []error{
		os.MkdirAll(in("src"), 0o755), os.WriteFile(in("src/a"), []byte("new"), 0o644), os.WriteFile(in("src/b"), []byte("new"), 0o644),
		os.Mkdir(in("dst"), 0o755), os.WriteFile(in("secret"), []byte("secret"), 0o600),
		os.Symlink("../secret", in("dst/a")), os.Link(in("secret"), in("dst/b")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := carry(in("src")+"/.", in("dst"), Options{}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"secret": "secret", "dst/a": "new", "dst/b": "new"} {
		if b, err := os.ReadFile(in(name)); err != nil || string(b) != want {
			t.Errorf("%s holds %q, %v; want %q", name, b, err, want)
		}
	}
}

// TestNotes: what cannot be copied is left out, and said.
func TestNotes(t *testing.T) {
	src := t.TempDir()
	if err := errors.Join(syscall.Mkfifo(src+"/pipe", 0o600), os.WriteFile(src+"/file", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	var notes []string
	dst := filepath.Join(t.TempDir(), "dst")
	if err := carry(src+"/.", dst, Options{Note: func(s string) { notes = append(notes, s) }}); err != nil {
		t.Fatal(err)
	}
	if len(notes) != 1 || !strings.Contains(notes[0], `"./pipe" left out: it is a pipe`) {
		t.Errorf("notes %q", notes)
	}
	if _, err := os.Stat(dst + "/file"); err != nil {
		t.Error(err)
	}
}

// TestInterrupted: a stream that breaks leaves no half file and no temporary one.
func TestInterrupted(t *testing.T) {
	src := build(t)
	s, err := OpenSource(src)
	if err != nil {
		t.Fatal(err)
	}
	defer shut(t, s)
	var whole bytes.Buffer
	if err := s.Pack(&whole, nil); err != nil {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	for cut := 0; cut < whole.Len(); cut += 50_000 {
		root := t.TempDir()
		dst, err := OpenTarget(root)
		if err != nil {
			t.Fatal(err)
		}
		err = dst.Unpack(io.MultiReader(bytes.NewReader(whole.Bytes()[:cut]), broken{boom}), Options{})
		_ = dst.Close()
		if !errors.Is(err, boom) {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, _ error) error {
			name := filepath.Base(path)
			if strings.HasPrefix(name, ".aegis-cp-") {
				t.Errorf("cut at %d: %s is left", cut, path)
			}
			if fi, err := d.Info(); err == nil && name == "big" && fi.Size() != 3<<20 {
				t.Errorf("cut at %d: big has %d bytes", cut, fi.Size())
			}
			return nil
		})
	}
}

type broken struct{ err error }

func (b broken) Read([]byte) (int, error) { return 0, b.err }

// TestChanging: a file that shrinks while it is read is an error, one that grows is
// read as it was.
func TestChanging(t *testing.T) {
	for _, size := range []int64{1 << 20, 20 << 20} {
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, make([]byte, 10<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := OpenSource(path)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		err = s.Pack(writer(func(b []byte) (int, error) {
			if out.Len() == 0 {
				if err := os.Truncate(path, size); err != nil {
					t.Fatal(err)
				}
			}
			return out.Write(b)
		}), nil)
		_ = s.Close()
		if shrank := size < 10<<20; shrank != (err != nil) {
			t.Errorf("truncated to %d: %v", size, err)
		}
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }

// TestPseudo reads a file whose size the kernel does not tell.
func TestPseudo(t *testing.T) {
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Skip("no /proc here")
	}
	dst := filepath.Join(t.TempDir(), "status")
	if err := carry("/proc/self/status", dst, Options{}); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(dst); err != nil || !bytes.Contains(b, []byte("VmRSS")) {
		t.Errorf("%q, %v", b, err)
	}
}

func TestExtract(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range []string{"a/b/c", "d"} {
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o600}); err != nil {
			t.Fatal(err)
		}
	}
	_ = w.Close()
	root := t.TempDir()
	dst, err := OpenFolder(root)
	if err != nil {
		t.Fatal(err)
	}
	defer shut(t, dst)
	if err := dst.Unpack(&b, Options{}); err != nil {
		t.Fatal(err)
	}
	got := strings.Fields(strings.ReplaceAll(describe(t, root), `"`, ""))
	if !slices.Contains(got, "a/b/c") || !slices.Contains(got, "d") {
		t.Errorf("got %v", got)
	}
	if _, err := OpenFolder(root + "/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder that is not there: %v", err)
	}
}
