package nfs

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"
)

func write(tb testing.TB, path, text string) {
	tb.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		tb.Fatal(err)
	}
}

func rename(tb testing.TB, from, to string) {
	tb.Helper()
	if err := os.Rename(from, to); err != nil {
		tb.Fatal(err)
	}
}

// text reads a file by its handle.
func (c *client) text(h []byte) string {
	c.t.Helper()
	b, _, st := c.read(h, 0, 1000)
	if st != statusOK {
		return st.Error()
	}
	return string(b)
}

func TestHandlesSurviveTheServer(t *testing.T) {
	dir, r, c, root := folder(t)
	write(t, filepath.Join(dir, "a/b/c/file"), "deep")
	write(t, filepath.Join(dir, "top"), "top")
	deep := c.walk(root, "a", "b", "c", "file")
	folder := c.walk(root, "a", "b")
	top := c.walk(root, "top")
	link, _, st := c.symlink(root, "link", "a/b")
	must(t, "symlink", st)
	r.close()
	// What happens while no server is there.
	rename(t, filepath.Join(dir, "a/b"), filepath.Join(dir, "elsewhere"))
	rename(t, filepath.Join(dir, "top"), filepath.Join(dir, "a/under"))
	r = serve(t, Options{}, Export{Name: "/", Dir: dir, ID: 7})
	c = r.client()
	if again := c.mnt("/"); string(again) != string(root) {
		t.Error("another handle of the root")
	}
	if got := c.text(deep); got != "deep" {
		t.Errorf("deep: %s", got)
	}
	if got := c.text(top); got != "top" {
		t.Errorf("top: %s", got)
	}
	if target, st := c.readlink(link); target != "a/b" {
		t.Errorf("link: %q, %v", target, st)
	}
	if _, st := c.lookup(folder, "c"); st != statusOK {
		t.Errorf("in a folder: %v", st)
	}
	if n := r.s.volumes[0].finder.walks; n != 1 {
		t.Errorf("%d walks for four handles", n)
	}
}

func TestHandlesSurviveRenamesOnTheHost(t *testing.T) {
	dir, r, c, root := folder(t)
	f := func(elem ...string) string { return filepath.Join(append([]string{dir}, elem...)...) }
	write(t, f("a/b/file"), "one")
	h := c.walk(root, "a", "b", "file")
	for i, step := range []struct{ from, to string }{
		{"a/b/file", "a/b/renamed"}, // within a folder
		{"a", "z"},                  // a folder above
		{"z/b/renamed", "moved"},    // into another folder
		{"z/b", "y"},
		{"moved", "y/back"},
		{"y", "z/deep"},
	} {
		rename(t, f(step.from), f(step.to))
		if got := c.text(h); got != "one" {
			t.Fatalf("after step %d, %s -> %s: %s", i, step.from, step.to, got)
		}
	}
	// A folder of the old name is another folder.
	write(t, f("a/b/file"), "two")
	if got := c.text(h); got != "one" {
		t.Errorf("a new file at the old place: %s", got)
	}
	if n := r.s.volumes[0].finder.walks; n > 3 {
		t.Errorf("%d walks", n)
	}
}

func TestFilesReplacedOnTheHost(t *testing.T) {
	dir, r, c, root := folder(t)
	path := filepath.Join(dir, "file")
	write(t, path, "old")
	h := c.walk(root, "file")
	if got := c.text(h); got != "old" {
		t.Fatal(got)
	}
	write(t, path+".tmp", "new")
	rename(t, path+".tmp", path)
	// Whoever has it open reads on, as on the host.
	if got := c.text(h); got != "old" {
		t.Errorf("open file that was replaced: %s", got)
	}
	if a, st := c.getattr(h); st != statusOK || a.links != 0 {
		t.Errorf("%+v, %v", a, st)
	}
	if got := c.text(c.walk(root, "file")); got != "new" {
		t.Errorf("by name: %s", got)
	}
	if n := r.s.volumes[0].finder.walks; n != 0 {
		t.Errorf("%d walks for a file that is known to be gone", n)
	}
	// As editors do it: the old one is kept under another name.
	rename(t, path, path+"~")
	write(t, path, "newer")
	again := c.walk(root, "file")
	if err := os.Remove(path + "~"); err != nil {
		t.Fatal(err)
	}
	if got := c.text(again); got != "newer" {
		t.Errorf("by name: %s", got)
	}
	// What nobody has open is gone.
	write(t, path, "x")
	unread := c.walk(root, "file")
	r.s.volumes[0].files.drop(identOf(t, unread))()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, st := c.getattr(unread); st != errStale {
		t.Errorf("removed on the host: %v", st)
	}
}

func identOf(tb testing.TB, h []byte) ident {
	tb.Helper()
	return ident{ino: binary.BigEndian.Uint64(h[12:]), gen: binary.BigEndian.Uint64(h[20:]), dev: binary.BigEndian.Uint64(h[28:])}
}

func TestHardLinks(t *testing.T) {
	dir, r, c, root := folder(t)
	write(t, filepath.Join(dir, "d/one"), "text")
	h := c.walk(root, "d", "one")
	for i := range 40 { // more than there are places for
		must(t, "link", c.link(h, root, fmt.Sprint("link", i)))
	}
	must(t, "remove", c.remove(c.walk(root, "d"), "one"))
	for i := range 39 {
		must(t, "remove", c.remove(root, fmt.Sprint("link", i)))
		if got := c.text(h); got != "text" {
			t.Fatalf("with %d links: %s", 39-i, got)
		}
	}
	r.close()
	rename(t, filepath.Join(dir, "link39"), filepath.Join(dir, "d/last"))
	r = serve(t, Options{}, Export{Name: "/", Dir: dir, ID: 7})
	c = r.client()
	if got := c.text(h); got != "text" {
		t.Errorf("by its last name: %s", got)
	}
	if a, _ := c.getattr(h); a.links != 1 {
		t.Errorf("%d links", a.links)
	}
}

// TestNumbersUsedAgain: a handle does not lead to another file that has got the number
// of the one it was for.
func TestNumbersUsedAgain(t *testing.T) {
	dir, r, c, root := folder(t)
	path := filepath.Join(dir, "file")
	write(t, path, "old")
	old := c.walk(root, "file")
	v := r.s.volumes[0]
	v.files.drop(identOf(t, old))()
	ino := identOf(t, old).ino
	for i := range 200 {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if i == 0 { // the clock of births is that coarse
			time.Sleep(20 * time.Millisecond)
		}
		write(t, path, "new")
		h := c.walk(root, "file")
		if identOf(t, h).ino != ino {
			continue
		}
		if string(h) == string(old) {
			t.Fatal("two files have had one handle")
		}
		if _, st := c.getattr(old); st != errStale {
			t.Errorf("the old handle: %v", st)
		}
		return
	}
	t.Skip("this file system does not use numbers again")
}

func TestBadHandles(t *testing.T) {
	dir, _, c, root := folder(t)
	write(t, filepath.Join(dir, "file"), "text")
	good := c.walk(root, "file")
	change := func(i int, b byte) []byte {
		h := append([]byte(nil), good...)
		h[i] ^= b
		return h
	}
	for what, h := range map[string][]byte{
		"empty": {}, "short": good[:35], "long": append(append([]byte(nil), good...), 0),
		"version": change(0, 2), "kind": change(1, 2), "padding": change(2, 1), "root with more": change(1, 1),
	} {
		if _, st := c.getattr(h); st != errBadHandle {
			t.Errorf("%s: %v", what, st)
		}
	}
	for what, h := range map[string][]byte{
		"other export": change(11, 1), "other inode": change(13, 1), "other birth": change(21, 1), "other device": change(30, 1),
	} {
		if _, st := c.getattr(h); st != errStale {
			t.Errorf("%s: %v", what, st)
		}
	}
}

// TestWalksAreBounded: a guest that makes handles up does not keep the host busy.
func TestWalksAreBounded(t *testing.T) {
	dir, r, c, root := folder(t)
	for i := range 2000 {
		write(t, filepath.Join(dir, fmt.Sprint("d", i%20), strconv.Itoa(i)), "")
	}
	f := r.s.volumes[0].finder
	f.rest = 1 << 30 // there is to be no second one
	good := c.walk(root, "d1")
	for i := range 300 {
		h := append([]byte(nil), good...)
		binary.BigEndian.PutUint64(h[12:], rand.Uint64())
		binary.BigEndian.PutUint64(h[20:], rand.Uint64())
		_, st := c.getattr(h)
		if i == 0 && st != errStale || i > 0 && st != errJukebox {
			t.Fatalf("handle %d: %v", i, st)
		}
		if _, st := c.getattr(h); i == 0 && st != errStale {
			t.Fatalf("the first one again: %v", st)
		}
	}
	if f.walks != 1 {
		t.Errorf("%d walks", f.walks)
	}
	// One that is cut short finds what it has seen.
	f.mu.Lock()
	f.resting, f.rest, f.entries = time.Time{}, 0, 5
	f.mu.Unlock()
	h := append([]byte(nil), good...)
	binary.BigEndian.PutUint64(h[12:], 1)
	if _, st := c.getattr(h); st != errStale {
		t.Errorf("after a walk that was cut short: %v", st)
	}
}

// TestManyMisses: what was forgotten for want of room is found again.
func TestManyMisses(t *testing.T) {
	dir := t.TempDir()
	const n = 600
	for i := range n {
		write(t, filepath.Join(dir, fmt.Sprint("d", i%7), fmt.Sprint("f", i)), strconv.Itoa(i))
	}
	r := serve(t, Options{MaxNodes: 100, MaxFiles: 8}, Export{Name: "/", Dir: dir, ID: 7})
	r.s.volumes[0].finder.rest = 0
	c := r.client()
	root := c.mnt("/")
	handles := make([][]byte, n)
	for i := range n {
		handles[i] = c.walk(root, fmt.Sprint("d", i%7), fmt.Sprint("f", i))
	}
	if got := len(r.s.volumes[0].nodes.nodes); got > 110 {
		t.Errorf("%d nodes, at most 100", got)
	}
	var wg sync.WaitGroup
	for k := range 4 {
		c := r.client()
		wg.Go(func() {
			for i := k; i < n; i += 4 {
				if got := c.text(handles[i]); got != strconv.Itoa(i) {
					t.Errorf("file %d: %s", i, got)
				}
			}
		})
	}
	wg.Wait()
}

// TestRenamesUnderWay: a folder is renamed without end by one connection while another
// works below it. Nothing is ever stale, and no walk is needed.
func TestRenamesUnderWay(t *testing.T) {
	dir, r, c, root := folder(t)
	write(t, filepath.Join(dir, "a/sub/file"), "text")
	h := c.walk(root, "a", "sub", "file")
	sub := c.walk(root, "a", "sub")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	mover := r.client()
	wg.Go(func() {
		names := []string{"a", "b"}
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				must(t, "rename", mover.rename(root, names[i%2], root, names[(i+1)%2]))
			}
		}
	})
	for i := range 2000 {
		if _, st := c.getattr(h); st != statusOK {
			t.Errorf("getattr %d: %v", i, st)
			break
		}
		name := fmt.Sprint("new", i)
		if _, _, st := c.create(sub, name, createGuarded, mode(0o600)); st != statusOK {
			t.Errorf("create %d: %v", i, st)
			break
		}
		want(t, "remove", c.remove(sub, name), statusOK)
	}
	close(stop)
	wg.Wait()
	if n := r.s.volumes[0].finder.walks; n != 0 {
		t.Errorf("%d walks", n)
	}
}
