package nfs

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// repeat sends a request once more, on another connection.
func (c *client) repeat(r *rig, msg []byte, xid uint32) status {
	c.t.Helper()
	other := r.client()
	other.send(msg)
	d, _ := other.reply(xid)
	return status(d.u32())
}

// requests is one of each kind that must not be done twice, with the state that it
// needs and leaves.
var requests = []struct {
	name  string
	proc  uint32
	args  func(root []byte, e *encoder)
	setUp string // a file that has to be there
	done  func(dir string) bool
	undo  func(dir string)
}{
	{"remove", procRemove, func(r []byte, e *encoder) { e.opaque(r); e.text("f") }, "f", missing("f"), nil},
	{"rmdir", procRmdir, func(r []byte, e *encoder) { e.opaque(r); e.text("d") }, "d/", missing("d"), nil},
	{"mkdir", procMkdir, func(r []byte, e *encoder) { e.opaque(r); e.text("n"); mode(0o755).write(e) }, "", there("n"), nil},
	{"symlink", procSymlink, func(r []byte, e *encoder) { e.opaque(r); e.text("n"); keep.write(e); e.text("to") }, "", there("n"), nil},
	{"mknod", procMknod, func(r []byte, e *encoder) { e.opaque(r); e.text("n"); e.u32(uint32(typeFIFO)); mode(0o600).write(e) }, "", there("n"), nil},
	{"create", procCreate, func(r []byte, e *encoder) { e.opaque(r); e.text("n"); e.u32(createGuarded); mode(0o600).write(e) }, "", there("n"), nil},
	{"create exclusive", procCreate, func(r []byte, e *encoder) { e.opaque(r); e.text("n"); e.u32(createExclusive); e.u64(99) }, "", there("n"), nil},
	{"rename", procRename, func(r []byte, e *encoder) { e.opaque(r); e.text("f"); e.opaque(r); e.text("n") }, "f", there("n"), nil},
}

func there(name string) func(string) bool {
	return func(dir string) bool { _, err := os.Lstat(filepath.Join(dir, name)); return err == nil }
}

func missing(name string) func(string) bool {
	return func(dir string) bool { return !there(name)(dir) }
}

func TestRepeatedRequests(t *testing.T) {
	for _, q := range requests {
		t.Run(q.name, func(t *testing.T) {
			dir, journal := t.TempDir(), filepath.Join(t.TempDir(), "journal")
			set := func() {
				switch {
				case q.setUp == "":
				case q.setUp[len(q.setUp)-1] == '/':
					_ = os.Mkdir(filepath.Join(dir, q.setUp), 0o755)
				default:
					write(t, filepath.Join(dir, q.setUp), "x")
				}
			}
			set()
			o := Options{Journal: journal}
			r := serve(t, o, Export{Name: "/", Dir: dir, ID: 7})
			c := r.client()
			root := c.mnt("/")
			e := c.header(programNFS, version3, q.proc)
			q.args(root, e)
			msg, xid := slices.Clone(e.b), c.xid
			c.send(msg)
			if d, _ := c.reply(xid); status(d.u32()) != statusOK || !q.done(dir) {
				t.Fatal("the first time")
			}
			want(t, "again", c.repeat(r, msg, xid), statusOK)
			r.close()
			r = serve(t, o, Export{Name: "/", Dir: dir, ID: 7})
			want(t, "at the next server", c.repeat(r, msg, xid), statusOK)
			r.close()

			// As if it had been killed between doing it and noting so.
			forget(t, journal)
			r = serve(t, o, Export{Name: "/", Dir: dir, ID: 7})
			want(t, "not known whether it was done", c.repeat(r, msg, xid), statusOK)
			if !q.done(dir) {
				t.Error("it is not done")
			}
			r.close()

			// A request that nobody has seen is answered as it is.
			if err := os.Remove(journal); err != nil {
				t.Fatal(err)
			}
			r = serve(t, o, Export{Name: "/", Dir: dir, ID: 7})
			if st := c.repeat(r, msg, xid); st == statusOK && q.name != "create exclusive" {
				t.Errorf("a new request: %v", st)
			}
			r.close()
		})
	}
}

// forget makes the journal's requests unfinished ones.
func forget(t *testing.T, path string) {
	t.Helper()
	j, err := openJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	defer j.close()
	old, err := j.load()
	if err != nil || len(old) == 0 {
		t.Fatalf("%d in the journal, %v", len(old), err)
	}
	for _, e := range old {
		e.answer = nil
		if err := j.put(e); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLinkAgain(t *testing.T) {
	dir, journal := t.TempDir(), filepath.Join(t.TempDir(), "journal")
	o := Options{Journal: journal}
	write(t, filepath.Join(dir, "f"), "x")
	r := serve(t, o, Export{Name: "/", Dir: dir, ID: 7})
	c := r.client()
	root := c.mnt("/")
	h := c.walk(root, "f")
	must(t, "link", c.link(h, root, "n"))
	e := encoder{}
	xid := c.xid
	c.xid-- // the same request once more
	h2 := c.header(programNFS, version3, procLink)
	h2.opaque(h)
	h2.opaque(root)
	h2.text("n")
	e.b = h2.b
	r.close()
	forget(t, journal)
	r = serve(t, o, Export{Name: "/", Dir: dir, ID: 7})
	want(t, "link again", c.repeat(r, e.b, xid), statusOK)
	r.close()
	forget(t, journal)
	_ = os.Remove(filepath.Join(dir, "n"))
	write(t, filepath.Join(dir, "n"), "another")
	r = serve(t, o, Export{Name: "/", Dir: dir, ID: 7})
	want(t, "link over another", c.repeat(r, e.b, xid), errExist)
}

func TestReplaysAreBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j, err := openJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	p, err := newReplays(j)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(p *replays, i int) (did bool) {
		out := &reply{}
		msg := []byte{byte(i), byte(i >> 8), byte(i >> 16)}
		if err := p.once(call{xid: uint32(i)}, msg, out, func(bool) { did = true; out.u32(uint32(i)) }); err != nil {
			t.Fatal(err)
		}
		if d := (decoder{b: out.b}); d.u32() != uint32(i) {
			t.Fatalf("another answer to %d", i)
		}
		return did
	}
	const n = 3*maxReplays + 17
	for i := range n {
		if !ask(p, i) {
			t.Fatalf("%d was not done", i)
		}
	}
	if len(p.known) != maxReplays {
		t.Errorf("%d answers are kept", len(p.known))
	}
	j.close()
	if j, err = openJournal(path); err != nil {
		t.Fatal(err)
	}
	defer j.close()
	if p, err = newReplays(j); err != nil {
		t.Fatal(err)
	}
	for i := n - maxReplays; i < n; i++ {
		if ask(p, i) {
			t.Fatalf("%d was done again", i)
		}
	}
	if !ask(p, n) || ask(p, n-1) || !ask(p, n-maxReplays) {
		t.Error("after a restart the oldest one does not go first")
	}
	if fi, err := os.Stat(path); err != nil || fi.Size() > maxReplays*slotSize {
		t.Errorf("%v, %v", fi.Size(), err)
	}
}

func TestJournalThatCannotBe(t *testing.T) {
	_, err := New(Options{Journal: "/no/such/folder/journal"}, Export{Name: "/", Dir: t.TempDir(), ID: 1})
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	path := filepath.Join(t.TempDir(), "journal")
	for _, text := range []string{"x", "\x01\x00\x00\x00\xff\xff\xff\xff", string(make([]byte, 3*slotSize+5))} {
		write(t, path, text)
		s, err := New(Options{Journal: path}, Export{Name: "/", Dir: t.TempDir(), ID: 1})
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		_ = s.Close()
	}
}
