package nfs

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestListingUnderChange: names that stay are told once and only once, whatever comes
// and goes meanwhile.
func TestListingUnderChange(t *testing.T) {
	dir, r, c, root := folder(t)
	const n = 3000
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
		if _, _, st := c.page(root, 0, count, true); st != statusTooSmall {
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
	if _, _, st := c.page(sub, 0, 4096, true); st != statusNotDir {
		t.Errorf("of a file: %v", st)
	}
}

// TestWindows: folders that are larger than what is held are told in parts.
func TestWindows(t *testing.T) {
	var names []listed
	for i := range 3 * maxListed {
		name := fmt.Sprint("name", i)
		names = append(names, listed{entry{name: name}, cookieOf(name)})
	}
	slices.SortFunc(names, compareListed)
	if names[0].cookie < firstCookie || names[len(names)-1].cookie >= 1<<62 {
		t.Error("cookies out of range")
	}
	w := &window{names: names[:10], whole: false}
	if _, ok := w.from(ident{}, stat{}, names[9].cookie); ok {
		t.Error("a window tells of what it does not hold")
	}
	if got, ok := w.from(ident{}, stat{}, names[4].cookie); !ok || len(got) != 5 {
		t.Errorf("%d names, %v", len(got), ok)
	}
	if testing.Short() {
		return
	}
	dir, _, c, root := folder(t)
	const n = 2*maxListed + 1000
	first := filepath.Join(dir, "first")
	write(t, first, "")
	for i := 1; i < n; i++ {
		path := filepath.Join(dir, fmt.Sprint(i))
		err := os.Link(first, path)
		if err != nil { // as many links as the file system takes
			first = path
			write(t, path, "")
		}
	}
	if got := len(c.list(root, maxListReply, false)); got != n+2 {
		t.Errorf("%d names of %d", got, n+2)
	}
}
