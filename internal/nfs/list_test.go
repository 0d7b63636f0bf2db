package nfs

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// TestListingUnderChange: names that stay are told once and only once, whatever comes
// and goes meanwhile.
func TestListingUnderChange(t *testing.T) {
	dir, r, c, root := folder(t)
	const n = 800
	for i := range n {
		write(t, filepath.Join(dir, fmt.Sprint("stays", i)), "")
		write(t, filepath.Join(dir, fmt.Sprint("goes", i)), "")
	}
	for _, plus := range []bool{false, true} {
		told := map[string]int{}
		step := 0
		for cookie := uint64(0); ; step++ {
			names, eof, st := c.page(root, cookie, 2000, plus)
			must(t, "list", st)
			for _, e := range names {
				told[e.name]++
				cookie = e.cookie
			}
			if eof {
				break
			}
			_ = os.Remove(filepath.Join(dir, fmt.Sprint("goes", step)))
			write(t, filepath.Join(dir, fmt.Sprint("comes", step)), "")
			if step == 20 && !plus { // a new server in the middle of it
				r.close()
				r = serve(t, Options{}, Export{Name: "/", Dir: dir, ID: 7})
				c = r.client()
			}
		}
		for i := range n {
			if got := told[fmt.Sprint("stays", i)]; got != 1 {
				t.Errorf("a name that stays was told %d times", got)
			}
		}
		for name, times := range told {
			if times > 1 {
				t.Errorf("%s was told %d times", name, times)
			}
		}
		if step < 20 {
			t.Fatalf("only %d pieces: the test shows nothing", step)
		}
	}
	if n := len(r.s.volumes[0].lists.windows); n != 0 {
		t.Errorf("%d listings are kept after their end", n)
	}
}

// TestRemoveWhileListing: what `rm -r` does.
func TestRemoveWhileListing(t *testing.T) {
	dir, _, c, root := folder(t)
	for i := range 2000 {
		write(t, filepath.Join(dir, fmt.Sprint("f", i)), "")
	}
	for cookie := uint64(0); ; {
		names, eof, st := c.page(root, cookie, 4096, true)
		must(t, "list", st)
		for _, e := range names {
			cookie = e.cookie
			if e.name != "." && e.name != ".." {
				must(t, "remove", c.remove(root, e.name))
			}
		}
		if eof {
			break
		}
	}
	if list, _ := os.ReadDir(dir); len(list) > 0 {
		t.Errorf("%d files are left", len(list))
	}
}

func TestListingSizes(t *testing.T) {
	dir, _, c, root := folder(t)
	if got := c.list(root, 512, true); len(got) != 2 {
		t.Errorf("an empty folder has %d names", len(got))
	}
	for i := range 300 {
		write(t, filepath.Join(dir, fmt.Sprintf("%0200d", i)), "")
	}
	for _, count := range []uint32{512, 4096, 1 << 20, 1<<32 - 1} {
		for _, plus := range []bool{false, true} {
			if got := c.list(root, count, plus); len(got) != 302 {
				t.Errorf("in pieces of %d: %d names", count, len(got))
			}
		}
	}
	for _, count := range []uint32{0, 1, 100} {
		if _, _, st := c.page(root, 0, count, true); st != errTooSmall {
			t.Errorf("in pieces of %d: %v", count, st)
		}
	}
	// Cookies that were never given lead somewhere all the same.
	for _, cookie := range []uint64{1, 2, 3, 1 << 61, 1<<64 - 1} {
		if _, _, st := c.page(root, cookie, 4096, false); st != statusOK {
			t.Errorf("cookie %d: %v", cookie, st)
		}
	}
	sub := c.walk(root, fmt.Sprintf("%0200d", 0))
	if _, _, st := c.page(sub, 0, 4096, true); st != errNotDir {
		t.Errorf("of a file: %v", st)
	}
}

// TestWindows: folders that are larger than what is held are told in parts.
func TestWindows(t *testing.T) {
	dir, r, c, root := folder(t)
	r.s.volumes[0].lists.limit = 100
	const n = 1234
	for i := range n {
		write(t, filepath.Join(dir, strconv.Itoa(i)), "")
		if c := cookieOf(strconv.Itoa(i)); c < firstCookie || c >= 1<<62 {
			t.Fatalf("cookie %d", c)
		}
	}
	told := map[string]bool{}
	for _, e := range c.list(root, 2000, false) {
		told[e.name] = true
	}
	if len(told) != n+2 {
		t.Errorf("%d names of %d", len(told), n+2)
	}
	w := &window{names: []listed{{cookie: 10}, {cookie: 20}, {cookie: 30}}}
	for cookie, want := range map[uint64]int{9: 3, 10: 2, 15: 2, 29: 1} {
		if got, ok := w.from(ident{}, stat{}, cookie); !ok || len(got) != want {
			t.Errorf("%d names after %d, %v", len(got), cookie, ok)
		}
	}
	if _, ok := w.from(ident{}, stat{}, 30); ok {
		t.Error("a window tells of what it does not hold")
	}
}
