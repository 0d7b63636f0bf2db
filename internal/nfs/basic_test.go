package nfs

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

func TestFiles(t *testing.T) {
	dir, _, c, root := folder(t)
	h, a, st := c.create(root, "a", createGuarded, mode(0o640))
	must(t, "create", st)
	if a.kind != typeRegular || a.mode != 0o640 || a.uid != 0 || a.links != 1 || a.fsid != 7 {
		t.Errorf("made %+v", a)
	}
	_, _, st = c.create(root, "a", createGuarded, mode(0o640))
	want(t, "create guarded again", st, errExist)
	again, _, st := c.create(root, "a", createUnchecked, mode(0o600))
	must(t, "create unchecked", st)
	if !bytes.Equal(h, again) {
		t.Error("another handle of the same file")
	}
	must(t, "write", c.write(h, 0, fileSync, []byte("hello")))
	must(t, "write", c.write(h, 5, unstable, []byte(" world")))
	if b, err := os.ReadFile(filepath.Join(dir, "a")); string(b) != "hello world" || err != nil {
		t.Errorf("on the host: %q, %v", b, err)
	}
	b, eof, st := c.read(h, 6, 100)
	must(t, "read", st)
	if string(b) != "world" || !eof {
		t.Errorf("read %q, eof %v", b, eof)
	}
	if b, eof, _ := c.read(h, 0, 5); string(b) != "hello" || eof {
		t.Errorf("read %q, eof %v", b, eof)
	}
	_, st = c.commit(h)
	must(t, "commit", st)
	must(t, "rename", c.rename(root, "a", root, "b"))
	if _, st := c.getattr(h); st != statusOK {
		t.Errorf("after a rename: %v", st)
	}
	_, st = c.lookup(root, "a")
	want(t, "old name", st, errNoEnt)
	must(t, "link", c.link(h, root, "c"))
	if a, _ := c.getattr(h); a.links != 2 {
		t.Errorf("%d links", a.links)
	}
	must(t, "remove", c.remove(root, "b"))
	if _, st := c.getattr(h); st != statusOK {
		t.Errorf("by its other name: %v", st)
	}
	must(t, "remove", c.remove(root, "c"))
	if _, st := c.getattr(h); st != errStale {
		t.Errorf("removed: %v", st)
	}
}

func TestListing(t *testing.T) {
	dir, _, c, root := folder(t)
	for i := range 1000 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("file-", i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, plus := range []bool{false, true} {
		all := c.list(root, 4096, plus)
		seen := map[string]bool{}
		for _, n := range all {
			if seen[n.name] {
				t.Errorf("%s twice", n.name)
			}
			seen[n.name] = true
			if plus && n.name != ".." && (n.attr == nil || n.attr.file != n.file) {
				t.Errorf("%s has number %d, attributes %+v", n.name, n.file, n.attr)
			}
		}
		if len(all) != 1002 {
			t.Errorf("%d names", len(all))
		}
	}
}
