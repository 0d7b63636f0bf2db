package nfs

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// outside is a folder beside the export with something in it that nobody may see or
// change.
func outside(t *testing.T) (top, dir string) {
	t.Helper()
	top = t.TempDir()
	dir = filepath.Join(top, "ws")
	write(t, filepath.Join(top, "ws-other", "secret"), "secret")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		list, err := os.ReadDir(filepath.Join(top, "ws-other"))
		if err != nil || len(list) != 1 {
			t.Errorf("outside there is %v, %v", list, err)
		}
		if b, _ := os.ReadFile(filepath.Join(top, "ws-other", "secret")); string(b) != "secret" {
			t.Errorf("outside: %q", b)
		}
	})
	return top, dir
}

// all is every procedure that takes a name.
func (c *client) all(dir, file []byte, name string) map[string]status {
	c.t.Helper()
	out := map[string]status{}
	_, out["lookup"] = c.lookup(dir, name)
	_, _, out["create"] = c.create(dir, name, createGuarded, mode(0o600))
	_, _, out["create unchecked"] = c.create(dir, name, createUnchecked, mode(0o600))
	_, _, out["create exclusive"] = c.createOnce(dir, name, 1)
	_, _, out["mkdir"] = c.mkdir(dir, name, 0o700)
	_, _, out["symlink"] = c.symlink(dir, name, "x")
	_, _, out["mknod"] = c.mknod(dir, name, typeFIFO, 0o600)
	out["remove"] = c.remove(dir, name)
	out["rmdir"] = c.rmdir(dir, name)
	out["rename from"] = c.rename(dir, name, dir, "other")
	out["rename to"] = c.rename(dir, "file", dir, name)
	out["link"] = c.link(file, dir, name)
	return out
}

func TestHostileNames(t *testing.T) {
	_, dir := outside(t)
	write(t, filepath.Join(dir, "file"), "text")
	write(t, filepath.Join(dir, "sub/inner"), "text")
	c := serve(t, Options{}, Export{Name: "/", Dir: dir, ID: 7}).client()
	root := c.mnt("/")
	file, sub := c.walk(root, "file"), c.walk(root, "sub")
	for name, wanted := range map[string]status{
		"": errInval, ".": errInval, "..": errInval, "/": errInval, "../ws-other": errInval, "sub/inner": errInval,
		"/etc": errInval, "a\x00b": errInval, "\x00": errInval, "../ws-other/secret": errInval,
		strings.Repeat("x", 256): errNameTooLong, strings.Repeat("x", 4000): errNameTooLong,
	} {
		for _, in := range [][]byte{root, sub} {
			for what, st := range c.all(in, file, name) {
				if what == "rename to" && st == errNoEnt { // what is to be renamed is not in that folder
					st = wanted
				}
				if st != wanted {
					t.Errorf("%s %.20q: %v, want %v", what, name, st, wanted)
				}
			}
		}
	}
	// A name that is too long for a message is no message.
	for _, proc := range []uint32{procLookup, procRemove, procRmdir} {
		if _, accept := c.rpc(programNFS, version3, proc, func(e *encoder) { e.opaque(root); e.text(strings.Repeat("x", 5000)) }); accept != acceptGarbage {
			t.Errorf("procedure %d: accept %d", proc, accept)
		}
	}
	// Odd ones are names like others.
	for _, name := range []string{"...", " ", "-rf", "a\nb", "\xff\xfe", "ü", strings.Repeat("y", 255), "con", "a\\b", "*"} {
		if _, _, st := c.create(root, name, createGuarded, mode(0o600)); st != statusOK {
			t.Errorf("create %q: %v", name, st)
		}
		if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
		want(t, "remove", c.remove(root, name), statusOK)
	}
}

// TestLinksAreNotFollowed: symlinks that a guest or a program on the host has planted
// are only ever read.
func TestLinksAreNotFollowed(t *testing.T) {
	top, dir := outside(t)
	c := serve(t, Options{}, Export{Name: "/", Dir: dir, ID: 7}).client()
	root := c.mnt("/")
	for _, target := range []string{filepath.Join(top, "ws-other"), "../ws-other", "/", "..", filepath.Join(top, "ws-other", "secret")} {
		h, a, st := c.symlink(root, "link", target)
		must(t, "symlink", st)
		if a.kind != typeSymlink {
			t.Errorf("a symlink is of type %d", a.kind)
		}
		if got, st := c.readlink(h); got != target || st != statusOK {
			t.Errorf("read the link to %q: %q, %v", target, got, st)
		}
		_, st = c.lookup(h, "secret")
		want(t, "lookup through a link", st, errNotDir)
		_, _, st = c.create(h, "new", createUnchecked, mode(0o666))
		want(t, "create through a link", st, errNotDir)
		want(t, "remove through a link", c.remove(h, "secret"), errNotDir)
		_, _, st = c.read(h, 0, 10)
		want(t, "read through a link", st, errInval)
		want(t, "write through a link", c.write(h, 0, unstable, []byte("x")), errInval)
		want(t, "chmod through a link", c.setattr(h, mode(0o777)), errNotSupp)
		s := keep
		s.size = 0
		want(t, "truncate through a link", c.setattr(h, s), errInval)
		now := keep
		now.mtime = timeArg{how: timeClient, at: moment{sec: 1e9}}
		want(t, "times of a link", c.setattr(h, now), statusOK)
		if fi, err := os.Lstat(filepath.Join(dir, "link")); err != nil || fi.ModTime().Unix() != 1e9 {
			t.Errorf("times of a link: %v, %v", fi, err)
		}
		// What is made over a link replaces nothing, and follows nothing.
		_, _, st = c.create(root, "link", createGuarded, mode(0o666))
		want(t, "create over a link", st, errExist)
		trunc := mode(0o666)
		trunc.size = 0
		if _, a, st := c.create(root, "link", createUnchecked, trunc); st != statusOK || a.kind != typeSymlink {
			t.Errorf("create unchecked over a link: %v, type %d", st, a.kind)
		}
		must(t, "remove", c.remove(root, "link"))
	}
	if fi, err := os.Stat(filepath.Join(top, "ws-other", "secret")); err != nil || fi.Mode().Perm() != 0o644 || fi.ModTime().Unix() == 1e9 {
		t.Errorf("%v, %v", fi, err)
	}
}

func TestFolderBecomesALink(t *testing.T) {
	top, dir := outside(t)
	write(t, filepath.Join(dir, "sub/secret"), "mine")
	r := serve(t, Options{}, Export{Name: "/", Dir: dir, ID: 7})
	c := r.client()
	root := c.mnt("/")
	sub, file := c.walk(root, "sub"), c.walk(root, "sub", "secret")
	rename(t, filepath.Join(dir, "sub"), filepath.Join(dir, "old"))
	if err := os.Symlink(filepath.Join(top, "ws-other"), filepath.Join(dir, "sub")); err != nil {
		t.Fatal(err)
	}
	if got := c.text(file); got != "mine" {
		t.Errorf("the file: %s", got)
	}
	_, _, st := c.create(sub, "new", createGuarded, mode(0o600))
	want(t, "create in the folder", st, statusOK)
	if _, err := os.Lstat(filepath.Join(dir, "old/new")); err != nil {
		t.Error(err)
	}
	// Gone from the export: not to be reached any more, even if it is open.
	must(t, "write", c.write(file, 0, unstable, []byte("mine")))
	rename(t, filepath.Join(dir, "old"), filepath.Join(top, "moved"))
	r.s.volumes[0].finder.rest = 0
	_, _, st = c.create(sub, "new2", createGuarded, mode(0o600))
	want(t, "create in a folder that is outside", st, errStale)
	want(t, "write to a file that is outside", c.write(file, 0, unstable, []byte("evil")), errStale)
	if b, _ := os.ReadFile(filepath.Join(top, "moved/secret")); string(b) != "mine" {
		t.Errorf("outside: %q", b)
	}
	rename(t, filepath.Join(top, "moved"), filepath.Join(dir, "returned"))
	r.s.volumes[0].finder.gone = map[ident]time.Time{}
	if got := c.text(file); got != "mine" {
		t.Errorf("after its return: %s", got)
	}
}

// TestFolderAndLinkTakeTurns: somebody exchanges a folder for a link to the outside,
// as fast as can be, while the guest works in it.
func TestFolderAndLinkTakeTurns(t *testing.T) {
	top, dir := outside(t)
	write(t, filepath.Join(dir, "sub/inner/secret"), "mine")
	if err := os.MkdirAll(filepath.Join(top, "ws-other", "inner"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // before outside looks
		if err := os.Remove(filepath.Join(top, "ws-other", "inner")); err != nil {
			t.Error(err)
		}
	})
	if err := os.Symlink(filepath.Join(top, "ws-other"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	r := serve(t, Options{}, Export{Name: "/", Dir: dir, ID: 7})
	c := r.client()
	root := c.mnt("/")
	sub, file := c.walk(root, "sub"), c.walk(root, "sub", "inner", "secret")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		p := func(n string) string { return filepath.Join(dir, n) }
		for {
			select {
			case <-stop:
				return
			default:
			}
			_ = os.Rename(p("sub"), p("away"))
			_ = os.Rename(p("link"), p("sub"))
			_ = os.Rename(p("sub"), p("link"))
			_ = os.Rename(p("away"), p("sub"))
		}
	})
	done := 0
	for i := 0; i < 1500 || done == 0 && i < 100000; i++ {
		if _, _, st := c.create(sub, "new", createUnchecked, mode(0o600)); st == statusOK {
			done++
		}
		_ = c.remove(sub, "new")
		_ = c.rmdir(sub, "inner")
		_ = c.write(file, 0, unstable, []byte("mine"))
		if got := c.text(file); got == "secret" {
			t.Error("read what is outside")
		}
	}
	close(stop)
	wg.Wait()
	if done == 0 {
		t.Error("nothing was ever made: the test shows nothing")
	}
	t.Logf("%d were made; %d walks", done, r.s.volumes[0].finder.walks)
}

func TestTwoExports(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	write(t, filepath.Join(a, "file"), "a")
	write(t, filepath.Join(b, "file"), "b")
	c := serve(t, Options{}, Export{Name: "/", Dir: a, ID: 1}, Export{Name: "/mounts/0", Dir: b, ID: 2, ReadOnly: true}).client()
	ra, rb := c.mnt("/"), c.mnt("/mounts/0")
	fa, fb := c.walk(ra, "file"), c.walk(rb, "file")
	if c.text(fa) != "a" || c.text(fb) != "b" {
		t.Error("mixed up")
	}
	if x, _ := c.getattr(ra); x.fsid != 1 || x.file != rootFileID {
		t.Errorf("%+v", x)
	}
	if x, _ := c.getattr(rb); x.fsid != 2 {
		t.Errorf("%+v", x)
	}
	want(t, "rename across", c.rename(ra, "file", rb, "x"), errROFS)
	want(t, "link across", c.link(fb, ra, "x"), errXDev)
	// A handle of one export is nothing in another.
	forged := append([]byte(nil), fa...)
	forged[11] = 2
	if _, st := c.getattr(forged); st != errStale {
		t.Errorf("a handle of another export: %v", st)
	}
	for what, st := range c.all(rb, fb, "new") {
		if what == "lookup" && st == errNoEnt || what == "link" && st == errROFS || st == errROFS {
			continue
		}
		t.Errorf("read-only: %s: %v", what, st)
	}
	want(t, "write", c.write(fb, 0, unstable, []byte("x")), errROFS)
	want(t, "chmod", c.setattr(fb, mode(0o777)), errROFS)
	if got := c.access(fb, 0x3f); got != accessRead {
		t.Errorf("access %#x", got)
	}
	if _, st := c.commit(fb); st != statusOK {
		t.Errorf("commit: %v", st)
	}
	if list, err := os.ReadDir(b); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
}
