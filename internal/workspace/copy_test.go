package workspace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/fault"
)

const fork = "inst-0123456789b"

// likeness describes all that a guest sees of a tree, and what is recorded of it.
func likeness(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	inodes := map[uint64]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		st := fi.Sys().(*syscall.Stat_t)
		line := fmt.Sprintf("%s %v %d:%d %d", name, fi.Mode(), st.Uid, st.Gid, st.Nlink)
		buf := make([]byte, 64)
		if n, err := unix.Lgetxattr(path, "user.aegis.guest", buf); err == nil {
			line += " " + string(buf[:n])
		}
		switch {
		case fi.Mode().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %q %v", b, fi.ModTime())
			if first, ok := inodes[st.Ino]; ok {
				line += " is " + first
			}
			inodes[st.Ino] = name
		case fi.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " -> " + target
		case fi.IsDir():
			line += " " + fi.ModTime().String()
		}
		out = append(out, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestCopy(t *testing.T) {
	s, home := newStore(t)
	if err := s.Ensure(id, Spec{}); err != nil {
		t.Fatal(err)
	}
	dir := s.Dir(id, Spec{})
	old := time.Unix(1_000_000_000, 0)
	for _, err := range []error{
		os.MkdirAll(filepath.Join(dir, "a/b/c"), 0o755),
		os.WriteFile(filepath.Join(dir, "a/file"), []byte("text"), 0o600),
		unix.Setxattr(filepath.Join(dir, "a/file"), "user.aegis.guest", []byte("33 44 4755 444"), 0),
		unix.Setxattr(filepath.Join(dir, "a/b"), "user.aegis.guest", []byte("33 - - -"), 0),
		os.Chmod(filepath.Join(dir, "a/file"), 0o444),
		os.Link(filepath.Join(dir, "a/file"), filepath.Join(dir, "a/b/same")),
		os.Symlink("/etc/passwd", filepath.Join(dir, "out")),
		os.Symlink("nowhere", filepath.Join(dir, "a/dangling")),
		unix.Mkfifo(filepath.Join(dir, "pipe"), 0o620),
		os.WriteFile(filepath.Join(dir, "a/b/c/empty"), nil, 0o644),
		os.Chtimes(filepath.Join(dir, "a/file"), old, old),
		os.Chmod(filepath.Join(dir, "a/b/c"), 0o1777),
		os.Chtimes(filepath.Join(dir, "a/b"), old, old),
		os.Chmod(dir, 0o700),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if os.Geteuid() == 0 {
		if err := os.Lchown(filepath.Join(dir, "out"), 12, 34); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Copy(t.Context(), id, fork); err != nil {
		t.Fatal(err)
	}
	want, got := likeness(t, dir), likeness(t, s.Dir(fork, Spec{}))
	if !slices.Equal(want, got) {
		t.Errorf("copied\n%q\nis\n%q", want, got)
	}
	wantKind(t, "a second copy", s.Copy(t.Context(), id, fork), fault.Unavailable)
	if err := s.Clear(fork); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	cancel(gone)
	if err := s.Copy(ctx, id, fork); !errors.Is(err, gone) {
		t.Errorf("a copy that is given up: %v", err)
	}
	wantKind(t, "an id that is none", s.Copy(t.Context(), id, "../x"), fault.Internal)
	if _, err := os.Lstat(filepath.Join(home.Instance(fork), automatic)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a copy is left: %v", err)
	}
}
