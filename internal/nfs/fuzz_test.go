package nfs

import (
	"bytes"
	"encoding/binary"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// seeds is a request of each procedure, as a kernel sends it.
func seeds(root, file []byte) [][]byte {
	c := &client{}
	req := func(proc uint32, args func(e *encoder)) []byte {
		e := c.header(programNFS, version3, proc)
		args(e)
		return e.b
	}
	r := func(e *encoder) { e.opaque(root) }
	f := func(e *encoder) { e.opaque(file) }
	in := func(name string) func(*encoder) { return func(e *encoder) { r(e); e.text(name) } }
	all := [][]byte{
		req(procNull, func(*encoder) {}),
		req(procGetattr, f), req(procReadlink, f), req(procFsstat, r), req(procFsinfo, r), req(procPathconf, r),
		req(procSetattr, func(e *encoder) { f(e); mode(0o4777).write(e); e.flag(false) }),
		req(procSetattr, func(e *encoder) { f(e); own(1, 2).write(e); e.flag(true); e.u64(1) }),
		req(procSetattr, func(e *encoder) { f(e); size(1 << 40).write(e); e.flag(false) }),
		req(procLookup, in("file")), req(procLookup, in("..")), req(procLookup, in("../outside")),
		req(procAccess, func(e *encoder) { f(e); e.u32(0x3f) }),
		req(procRead, func(e *encoder) { f(e); e.u64(0); e.u32(MaxIO) }),
		req(procRead, func(e *encoder) { f(e); e.u64(1<<64 - 1); e.u32(1<<32 - 1) }),
		req(procWrite, func(e *encoder) { f(e); e.u64(0); e.u32(4); e.u32(fileSync); e.text("text") }),
		req(procWrite, func(e *encoder) { f(e); e.u64(1 << 20); e.u32(1); e.u32(unstable); e.text("x") }),
		req(procCreate, func(e *encoder) { in("new")(e); e.u32(createUnchecked); size(0).write(e) }),
		req(procCreate, func(e *encoder) { in("once")(e); e.u32(createExclusive); e.u64(1) }),
		req(procMkdir, func(e *encoder) { in("dir")(e); mode(0o2700).write(e) }),
		req(procSymlink, func(e *encoder) { in("link")(e); keep.write(e); e.text("../outside") }),
		req(procMknod, func(e *encoder) { in("fifo")(e); e.u32(uint32(typeFIFO)); mode(0).write(e) }),
		req(procMknod, func(e *encoder) { in("dev")(e); e.u32(uint32(typeBlock)); mode(0).write(e); e.u64(8 << 32) }),
		req(procRemove, in("file")), req(procRmdir, in("dir")), req(procRemove, in("link/secret")),
		req(procRename, func(e *encoder) { in("file")(e); in("moved")(e) }),
		req(procRename, func(e *encoder) { in("sub")(e); in("../sub")(e) }),
		req(procLink, func(e *encoder) { f(e); in("hard")(e) }),
		req(procReaddir, func(e *encoder) { r(e); e.u64(0); e.u64(0); e.u32(4096) }),
		req(procReaddirplus, func(e *encoder) { r(e); e.u64(2); e.u64(0); e.u32(512); e.u32(1<<32 - 1) }),
		req(procCommit, func(e *encoder) { f(e); e.u64(0); e.u32(0) }),
	}
	mnt := c.header(programMount, version3, mountMnt)
	mnt.text("/")
	return append(all, mnt.b)
}

// FuzzRequests sends two requests, one after the other, to a server over a small tree.
// It answers or does not; what is outside stays as it is.
func FuzzRequests(f *testing.F) {
	top := f.TempDir()
	dir := filepath.Join(top, "ws")
	write(f, filepath.Join(top, "outside", "secret"), "secret")
	lay(dir)
	s, err := New(Options{MaxNodes: 16, MaxFiles: 2}, Export{Name: "/", Dir: dir, ID: 7})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = s.Close() })
	v := s.volumes[0]
	v.finder.rest = 0
	st, err := v.root.statChild("file")
	if err != nil {
		f.Fatal(err)
	}
	var root, file [handleSize]byte
	v.putHandle(&root, v.top)
	v.putHandle(&file, v.local(st).id)
	all := seeds(root[:], file[:])
	for i := range all {
		f.Add(all[i], all[(i+7)%len(all)])
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		for _, msg := range [][]byte{first, second} {
			r := s.answer(msg)
			if r == nil {
				continue
			}
			b := r.record()
			if n := binary.BigEndian.Uint32(b); n&lastMark == 0 || int(n&^lastMark) != len(b)-4 || len(b)%4 != 0 || len(b) > maxRequest {
				t.Fatalf("a record of %d bytes, marked %#x", len(b), n)
			}
			s.buffers.put(r.buf)
			r.finish()
		}
		if b, err := os.ReadFile(filepath.Join(top, "outside", "secret")); err != nil || string(b) != "secret" {
			t.Fatalf("outside: %q, %v", b, err)
		}
		if list, err := os.ReadDir(top); err != nil || len(list) != 2 {
			t.Fatalf("beside the export: %v, %v", list, err)
		}
		if fi, err := os.Lstat(filepath.Join(top, "outside", "secret")); err != nil || fi.Mode() != 0o644 {
			t.Fatalf("outside: %v", fi.Mode())
		}
		if n := len(v.nodes.nodes); n > 64 {
			t.Fatalf("%d nodes", n)
		}
		clean(t, dir)
		lay(dir)
	})
}

// lay puts into a folder what the seeds speak of, where the guest has left nothing of
// that name.
func lay(dir string) {
	_ = os.MkdirAll(filepath.Join(dir, "sub"), 0o755)
	for _, name := range []string{"file", "sub/inner"} {
		if f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644); err == nil {
			_, _ = f.WriteString("text")
			_ = f.Close()
		}
	}
	_ = os.Symlink("../outside", filepath.Join(dir, "link"))
}

// clean empties a folder that grew too large.
func clean(t *testing.T, dir string) {
	t.Helper()
	n := 0
	_ = filepath.WalkDir(dir, func(string, fs.DirEntry, error) error { n++; return nil })
	if n < 50 {
		return
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		_ = os.RemoveAll(filepath.Join(dir, e.Name()))
	}
}

// FuzzStream sends bytes. The connection ends when they do, and holds no buffers.
func FuzzStream(f *testing.F) {
	s, err := New(Options{}, Export{Name: "/", Dir: f.TempDir(), ID: 7})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = s.Close() })
	var root [handleSize]byte
	s.volumes[0].putHandle(&root, s.volumes[0].top)
	for _, msg := range seeds(root[:], root[:]) {
		f.Add(append(record3(msg), record3(msg)...))
	}
	f.Add([]byte{0, 0, 0, 1, 2, 0x80, 0, 0, 0})
	f.Add([]byte{0x80, 0x10, 0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		ours, theirs := net.Pipe()
		c := newConn(s, theirs)
		done := make(chan struct{})
		go func() { defer close(done); c.serve() }()
		drained := make(chan struct{})
		go func() { defer close(drained); _, _ = io.Copy(io.Discard, ours) }()
		_ = ours.SetWriteDeadline(time.Now().Add(5 * time.Second))
		_, _ = io.Copy(ours, bytes.NewReader(in))
		_ = ours.Close()
		<-done
		<-drained
		if n := len(s.buffers.tokens); n != 0 {
			t.Fatalf("%d large buffers are in use", n)
		}
	})
}

func FuzzRecordText(f *testing.F) {
	for _, s := range []string{"1000 100 4755 755", "- - - -", "", "0 0 7777 0", "4294967295 1 - -", "1 2 3", "-1 0 - -", "1 2 8 8", "1 2 - 755"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r := parseRecord(in)
		if again := parseRecord([]byte(r.String())); again != r {
			t.Fatalf("%+v is read back as %+v", r, again)
		}
		if len(r.String()) > maxRecord {
			t.Fatalf("%q is too long", r)
		}
		if m := r.guestMode(0o755); m > bitsAll {
			t.Fatalf("mode %o", m)
		}
	})
}

func FuzzJournal(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0})
	f.Add(bytes.Repeat([]byte{2, 0, 0, 0, 0xe8, 1, 0, 0}, 100))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, in []byte) {
		path := filepath.Join(dir, "journal")
		if err := os.WriteFile(path, in, 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := openJournal(path)
		if err != nil {
			t.Fatal(err)
		}
		defer j.close()
		p, err := newReplays(j)
		if err != nil {
			t.Fatal(err)
		}
		out := &reply{}
		if err := p.once(call{xid: 1}, []byte("msg"), out, func(bool) { out.u32(1) }); err != nil {
			t.Fatal(err)
		}
	})
}
