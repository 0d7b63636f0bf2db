package nfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOldKernel repeats tests of containment where the kernel resolves no path
// beneath a folder.
func TestOldKernel(t *testing.T) {
	openat2 = func(int, string, *unix.OpenHow) (int, error) { return -1, unix.ENOSYS }
	t.Cleanup(func() { openat2 = unix.Openat2 })
	t.Run("handles", TestHandlesSurviveTheServer)
	t.Run("renames", TestHandlesSurviveRenamesOnTheHost)
	t.Run("names", TestHostileNames)
	t.Run("links", TestLinksAreNotFollowed)
	t.Run("becomes a link", TestFolderBecomesALink)
	t.Run("take turns", TestFolderAndLinkTakeTurns)
	t.Run("mounts", TestMountsAreNotEntered)
	t.Run("deep", TestDeepPaths)
}

func mountOn(t *testing.T, source, target, fstype string, flags uintptr) {
	t.Helper()
	if err := unix.Mount(source, target, fstype, flags, ""); err != nil {
		t.Skipf("mount %s: %v", fstype, err)
	}
	t.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) })
}

func TestMountsAreNotEntered(t *testing.T) {
	top, dir := outside(t)
	write(t, filepath.Join(dir, "bound/below"), "")
	write(t, filepath.Join(dir, "memory/below"), "")
	write(t, filepath.Join(dir, "file"), "")
	r := serve(t, Options{}, Export{Name: "/", Dir: dir, ID: 7})
	c := r.client()
	root := c.mnt("/")
	bound := c.walk(root, "bound")
	mountOn(t, filepath.Join(top, "ws-other"), filepath.Join(dir, "bound"), "", unix.MS_BIND)
	mountOn(t, "tmpfs", filepath.Join(dir, "memory"), "tmpfs", 0)
	mountOn(t, filepath.Join(top, "ws-other", "secret"), filepath.Join(dir, "file"), "", unix.MS_BIND)
	for _, name := range []string{"bound", "memory", "file"} {
		_, st := c.lookup(root, name)
		want(t, "lookup of "+name, st, errAccess)
		if st := c.remove(root, name); st == statusOK {
			t.Errorf("removed %s", name)
		}
		if st := c.rename(root, name, root, "x"); st == statusOK {
			t.Errorf("renamed %s", name)
		}
	}
	for _, n := range c.list(root, 4096, true) {
		if n.name != "." && n.name != ".." && (n.attr != nil || n.handle != nil) {
			t.Errorf("listed %s with %+v", n.name, n.attr)
		}
	}
	if _, st := c.getattr(bound); st != errStale {
		t.Errorf("the folder below the mount: %v", st)
	}
	_, _, st := c.create(bound, "new", createGuarded, mode(0o600))
	want(t, "create there", st, errStale)
}

// TestBelow: a path is followed through folders, and through nothing else.
func TestBelow(t *testing.T) {
	top, dir := outside(t)
	write(t, filepath.Join(dir, "sub/file"), "")
	write(t, filepath.Join(dir, "mount/file"), "")
	for name, target := range map[string]string{"link": "sub", "out": filepath.Join(top, "ws-other"), "up": "../ws-other"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	mountOn(t, filepath.Join(top, "ws-other"), filepath.Join(dir, "mount"), "", unix.MS_BIND)
	root, err := openFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(root.close)
	for path, want := range map[string]error{
		"sub/file": nil, "sub": nil, "link": nil, "link/file": unix.ELOOP, "out/secret": unix.ELOOP, "up/secret": unix.ELOOP,
		"mount": unix.EXDEV, "mount/secret": unix.EXDEV, "no": unix.ENOENT, "sub/file/x": unix.ENOTDIR,
	} {
		for how, below := range map[string]func(place, string) (place, error){"openat2": place.below, "by name": byName} {
			p, err := below(root, path)
			if err == nil {
				p.close()
			}
			// By name a link in the middle is something that is no folder.
			if through := errors.Is(want, unix.ELOOP) && errors.Is(err, unix.ENOTDIR); !errors.Is(err, want) && !through {
				t.Errorf("%s, %s: %v, want %v", path, how, err, want)
			}
		}
	}
}

// TestDeepPaths: a guest can make paths that are longer than one call of the host
// takes.
func TestDeepPaths(t *testing.T) {
	dir, r, c, root := folder(t)
	h := root
	name := strings.Repeat("n", 200)
	for range 40 {
		next, _, st := c.mkdir(h, name, 0o755)
		must(t, "mkdir", st)
		h = next
	}
	f, _, st := c.create(h, "file", createGuarded, mode(0o600))
	must(t, "create", st)
	must(t, "write", c.write(f, 0, unstable, []byte("deep")))
	r.close()
	r = serve(t, Options{}, Export{Name: "/", Dir: dir, ID: 7})
	c = r.client()
	if got := c.text(f); got != "deep" {
		t.Errorf("deep: %s", got)
	}
	must(t, "remove", c.remove(h, "file"))
}

// TestWithoutAttributes: a file system that keeps none has owners for as long as the
// server lives.
func TestWithoutAttributes(t *testing.T) {
	dir := t.TempDir()
	mountOn(t, "ramfs", dir, "ramfs", 0)
	r := serve(t, Options{}, Export{Name: "/", Dir: dir, ID: 7})
	c := r.client()
	root := c.mnt("/")
	h, _, st := c.create(root, "file", createGuarded, mode(0o644))
	must(t, "create", st)
	must(t, "chown", c.setattr(h, set{mode: 0o4755, uid: 1000, gid: 1000, size: -1}))
	c.is(h, 0o4755, 1000, 1000)
	for _, n := range c.list(root, 4096, true) {
		if n.name == "file" && (n.attr.uid != 1000 || n.attr.mode != 0o4755) {
			t.Errorf("listed: %+v", n.attr)
		}
	}
	must(t, "chown back", c.setattr(h, own(0, 0)))
	must(t, "chmod back", c.setattr(h, mode(0o644)))
	if n := len(r.s.volumes[0].memory.m); n != 0 {
		t.Errorf("%d records are left", n)
	}
	m := &memory{}
	for i := range maxMemory + 100 {
		m.set(ident{ino: uint64(i)}, record{uid: 1, gid: 1, mode: -1, under: -1})
	}
	if len(m.m) != maxMemory {
		t.Errorf("%d records in memory", len(m.m))
	}
}

// TestOwnerOfTheFolder: where the daemon is root, what guests make belongs to the user
// whose folder it is.
func TestOwnerOfTheFolder(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only for root")
	}
	dir := t.TempDir()
	if err := os.Chown(dir, ordinary, ordinary); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "his"), "")
	if err := os.Chown(filepath.Join(dir, "his"), ordinary, ordinary); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "root's"), "")
	c := serve(t, Options{}, Export{Name: "/", Dir: dir, ID: 7}).client()
	root := c.mnt("/")
	c.is(root, 0o755, 0, 0)
	c.is(c.walk(root, "his"), 0o644, 0, 0)
	c.is(c.walk(root, "root's"), 0o644, nobodyID, nobodyID)
	_, _, st := c.create(root, "file", createGuarded, mode(0o600))
	must(t, "create", st)
	_, _, st = c.mkdir(root, "folder", 0o700)
	must(t, "mkdir", st)
	_, _, st = c.symlink(root, "link", "file")
	must(t, "symlink", st)
	_, _, st = c.as(1000, 1000).create(root, "x", createGuarded, mode(0o600))
	want(t, "create by a user", st, errAccess)
	for _, name := range []string{"file", "folder", "link"} {
		if st := hostStat(t, filepath.Join(dir, name)); st.Uid != ordinary || st.Gid != ordinary {
			t.Errorf("%s is %d:%d's", name, st.Uid, st.Gid)
		}
		c.is(c.walk(root, name), map[string]uint32{"file": 0o600, "folder": 0o700, "link": 0o777}[name], 0, 0)
	}
}

// overlay mounts an overlay over lower, and returns a folder of it.
func overlay(t *testing.T, top, opts string) string {
	t.Helper()
	for _, d := range []string{"upper/upper", "upper/work", "merged"} {
		if err := os.MkdirAll(filepath.Join(top, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	merged := filepath.Join(top, "merged")
	opts += fmt.Sprintf(",lowerdir=%[1]s/lower,upperdir=%[1]s/upper/upper,workdir=%[1]s/upper/work", top)
	if err := unix.Mount("overlay", merged, "overlay", 0, strings.TrimPrefix(opts, ",")); err != nil {
		t.Skipf("mount overlay: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(merged, unix.MNT_DETACH) })
	return filepath.Join(merged, "ws")
}

// TestOtherDevices: on some layered file systems files are on another device than their
// folder, and have other numbers than the listing says.
func TestOtherDevices(t *testing.T) {
	top := t.TempDir()
	if err := os.Mkdir(filepath.Join(top, "lower"), 0o755); err != nil {
		t.Fatal(err)
	}
	mountOn(t, "tmpfs", filepath.Join(top, "lower"), "tmpfs", 0)
	write(t, filepath.Join(top, "lower/ws/d/old"), "old")
	dir := overlay(t, top, "xino=off")
	write(t, filepath.Join(dir, "new"), "new")
	r := serve(t, Options{}, Export{Name: "/", Dir: dir, ID: 7})
	c := r.client()
	root := c.mnt("/")
	old, made := c.walk(root, "d", "old"), c.walk(root, "new")
	r.close()
	rename(t, filepath.Join(dir, "new"), filepath.Join(dir, "moved"))
	r = serve(t, Options{}, Export{Name: "/", Dir: dir, ID: 7})
	c = r.client()
	if got := c.text(old); got != "old" {
		t.Errorf("from the lower layer: %s", got)
	}
	if got := c.text(made); got != "new" {
		t.Errorf("from the upper layer: %s", got)
	}
	for _, n := range c.list(c.walk(root, "d"), 4096, true) {
		if n.name != ".." && (n.attr == nil || n.attr.file != n.file) {
			t.Errorf("%s: number %d, attributes %+v", n.name, n.file, n.attr)
		}
	}
}

// TestCopiedUp: the first write to a file of a lower layer makes another file of it,
// which is the same to the guest.
func TestCopiedUp(t *testing.T) {
	top := t.TempDir()
	write(t, filepath.Join(top, "lower/ws/d/file"), "old")
	dir := overlay(t, top, "")
	c := serve(t, Options{}, Export{Name: "/", Dir: dir, ID: 7}).client()
	root := c.mnt("/")
	d, h := c.walk(root, "d"), c.walk(root, "d", "file")
	if got := c.text(h); got != "old" {
		t.Error(got)
	}
	must(t, "write", c.write(h, 0, fileSync, []byte("new")))
	if got := c.text(h); got != "new" {
		t.Error(got)
	}
	_, _, st := c.create(d, "other", createGuarded, mode(0o600))
	must(t, "create", st)
	must(t, "chown", c.setattr(d, own(5, 5)))
	c.is(d, 0o755, 5, 5)
}
