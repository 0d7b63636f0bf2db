package nfs

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// client speaks NFS as a kernel does, one request at a time, or whatever a test makes
// of it. A broken connection fails the test.
type client struct {
	t    testing.TB
	nc   net.Conn
	xid  uint32
	cred cred
}

// rig is a server over folders of the test.
type rig struct {
	t    testing.TB
	s    *Server
	addr string
	done chan error
	once sync.Once
}

func serve(tb testing.TB, o Options, exports ...Export) *rig {
	tb.Helper()
	s, err := New(o, exports...)
	if err != nil {
		tb.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	r := &rig{t: tb, s: s, addr: ln.Addr().String(), done: make(chan error, 1)}
	go func() { r.done <- s.Serve(ln) }()
	tb.Cleanup(r.close)
	return r
}

func (r *rig) close() {
	r.once.Do(func() {
		if err := r.s.Close(); err != nil {
			r.t.Errorf("close: %v", err)
		}
		if err := <-r.done; err != nil {
			r.t.Errorf("serve: %v", err)
		}
	})
}

func (r *rig) client() *client {
	r.t.Helper()
	nc, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = nc.Close() })
	return &client{t: r.t, nc: nc}
}

// folder serves one folder and returns a client of it, with the root's handle.
func folder(t *testing.T) (dir string, r *rig, c *client, root []byte) {
	t.Helper()
	dir = t.TempDir()
	r = serve(t, Options{}, Export{Name: "/", Dir: dir, ID: 7})
	c = r.client()
	return dir, r, c, c.mnt("/")
}

func (c *client) as(uid, gid uint32, groups ...uint32) *client {
	other := *c
	other.cred = cred{uid: uid, gid: gid, groups: groups}
	other.xid = c.xid + 100000*uid
	return &other
}

func (c *client) header(program, version, proc uint32) *encoder {
	c.xid++
	e := &encoder{}
	for _, v := range []uint32{c.xid, msgCall, rpcVersion, program, version, proc, authSys} {
		e.u32(v)
	}
	var a encoder
	a.u32(0)
	a.text("guest")
	a.u32(c.cred.uid)
	a.u32(c.cred.gid)
	a.u32(uint32(len(c.cred.groups)))
	for _, g := range c.cred.groups {
		a.u32(g)
	}
	e.opaque(a.b)
	e.u32(authNone)
	e.u32(0)
	return e
}

func record3(msg []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, lastMark|uint32(len(msg))), msg...)
}

func (c *client) send(msg []byte) {
	c.t.Helper()
	if _, err := c.nc.Write(record3(msg)); err != nil {
		c.t.Fatal(err)
	}
}

// receive returns the next message.
func (c *client) receive() ([]byte, error) {
	_ = c.nc.SetReadDeadline(time.Now().Add(30 * time.Second))
	var mark [4]byte
	if _, err := io.ReadFull(c.nc, mark[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint32(mark[:])&^lastMark)
	_, err := io.ReadFull(c.nc, b)
	return b, err
}

// reply returns what follows the header of the answer to xid, and its accept_stat.
func (c *client) reply(xid uint32) (*decoder, uint32) {
	c.t.Helper()
	b, err := c.receive()
	if err != nil {
		c.t.Fatal(err)
	}
	d := &decoder{b: b}
	if got, kind, denied := d.u32(), d.u32(), d.u32(); got != xid || kind != msgReply || denied != 0 {
		c.t.Fatalf("reply to %d of kind %d, denied %d; want %d", got, kind, denied, xid)
	}
	d.u32()
	d.opaque(maxAuth)
	return d, d.u32()
}

func (c *client) rpc(program, version, proc uint32, args func(*encoder)) (*decoder, uint32) {
	c.t.Helper()
	e := c.header(program, version, proc)
	if args != nil {
		args(e)
	}
	c.send(e.b)
	return c.reply(c.xid)
}

// do calls a procedure of NFS and returns its status.
func (c *client) do(proc uint32, args func(*encoder)) (*decoder, status) {
	c.t.Helper()
	d, accept := c.rpc(programNFS, version3, proc, args)
	if accept != acceptSuccess {
		c.t.Fatalf("procedure %d: accept %d", proc, accept)
	}
	s := status(d.u32())
	if d.bad {
		c.t.Fatalf("procedure %d: no status", proc)
	}
	return d, s
}

func (c *client) mnt(path string) []byte {
	c.t.Helper()
	d, accept := c.rpc(programMount, version3, mountMnt, func(e *encoder) { e.text(path) })
	if s := d.u32(); accept != acceptSuccess || s != mountOK {
		c.t.Fatalf("mount %s: accept %d, status %d", path, accept, s)
	}
	return append([]byte(nil), d.opaque(handleMax)...)
}

// seen is fattr3 as a client reads it.
type seen struct {
	kind                   fileType
	mode, links, uid, gid  uint32
	size, used, fsid, file uint64
	atime, mtime, ctime    moment
}

func fattr(d *decoder) (a seen) {
	a.kind = fileType(d.u32())
	a.mode, a.links, a.uid, a.gid = d.u32(), d.u32(), d.u32(), d.u32()
	a.size, a.used = d.u64(), d.u64()
	d.u64()
	a.fsid, a.file = d.u64(), d.u64()
	when := func() moment { return moment{int64(d.u32()), d.u32()} }
	a.atime, a.mtime, a.ctime = when(), when(), when()
	return a
}

func postAttr(d *decoder) *seen {
	if !d.flag() {
		return nil
	}
	a := fattr(d)
	return &a
}

// wcc reads wcc_data.
func wcc(d *decoder) {
	if d.flag() {
		d.take(24)
	}
	postAttr(d)
}

func (c *client) getattr(h []byte) (seen, status) {
	c.t.Helper()
	d, s := c.do(procGetattr, func(e *encoder) { e.opaque(h) })
	if s != statusOK {
		return seen{}, s
	}
	return c.whole(d, fattr(d)), s
}

// whole fails the test if an answer was too short, or has something behind it.
func (c *client) whole(d *decoder, a seen) seen {
	c.t.Helper()
	if d.bad || len(d.b) > 0 {
		c.t.Fatalf("an answer of the wrong length: bad %v, %d bytes left", d.bad, len(d.b))
	}
	return a
}

func (c *client) lookup(dir []byte, name string) ([]byte, status) {
	c.t.Helper()
	d, s := c.do(procLookup, func(e *encoder) { e.opaque(dir); e.text(name) })
	if s != statusOK {
		postAttr(d)
		c.whole(d, seen{})
		return nil, s
	}
	h := d.opaque(handleMax)
	if postAttr(d) == nil {
		c.t.Error("looked up without attributes")
	}
	postAttr(d)
	c.whole(d, seen{})
	return h, s
}

// walk looks a path up, which must be there.
func (c *client) walk(root []byte, names ...string) []byte {
	c.t.Helper()
	h := root
	for _, n := range names {
		next, s := c.lookup(h, n)
		if s != statusOK {
			c.t.Fatalf("look up %q: %v", n, s)
		}
		h = next
	}
	return h
}

// set is sattr3 as a client writes it.
type set struct {
	mode, uid, gid int64 // -1 is none
	size           int64
	atime, mtime   timeArg
}

var keep = set{mode: -1, uid: -1, gid: -1, size: -1}

func mode(m int64) set {
	s := keep
	s.mode = m
	return s
}

func (s set) write(e *encoder) {
	for _, v := range []int64{s.mode, s.uid, s.gid} {
		e.flag(v >= 0)
		if v >= 0 {
			e.u32(uint32(v))
		}
	}
	e.flag(s.size >= 0)
	if s.size >= 0 {
		e.u64(uint64(s.size))
	}
	for _, t := range []timeArg{s.atime, s.mtime} {
		e.u32(t.how)
		if t.how == timeClient {
			e.u32(uint32(t.at.sec))
			e.u32(t.at.nsec)
		}
	}
}

func (c *client) setattr(h []byte, s set) status {
	c.t.Helper()
	d, st := c.do(procSetattr, func(e *encoder) { e.opaque(h); s.write(e); e.flag(false) })
	wcc(d)
	c.whole(d, seen{})
	return st
}

// made reads the answer to what makes something.
func (c *client) made(d *decoder, s status) ([]byte, seen, status) {
	c.t.Helper()
	if s != statusOK {
		wcc(d)
		c.whole(d, seen{})
		return nil, seen{}, s
	}
	if !d.flag() {
		c.t.Fatal("no handle of what was made")
	}
	h := d.opaque(handleMax)
	a := postAttr(d)
	wcc(d)
	return h, c.whole(d, *a), s
}

func (c *client) create(dir []byte, name string, how uint32, s set) ([]byte, seen, status) {
	c.t.Helper()
	return c.made(c.do(procCreate, func(e *encoder) { e.opaque(dir); e.text(name); e.u32(how); s.write(e) }))
}

func (c *client) createOnce(dir []byte, name string, verifier uint64) ([]byte, seen, status) {
	c.t.Helper()
	return c.made(c.do(procCreate, func(e *encoder) { e.opaque(dir); e.text(name); e.u32(createExclusive); e.u64(verifier) }))
}

func (c *client) mkdir(dir []byte, name string, m int64) ([]byte, seen, status) {
	c.t.Helper()
	return c.made(c.do(procMkdir, func(e *encoder) { e.opaque(dir); e.text(name); mode(m).write(e) }))
}

func (c *client) symlink(dir []byte, name, target string) ([]byte, seen, status) {
	c.t.Helper()
	return c.made(c.do(procSymlink, func(e *encoder) { e.opaque(dir); e.text(name); keep.write(e); e.text(target) }))
}

func (c *client) mknod(dir []byte, name string, kind fileType, m int64) ([]byte, seen, status) {
	c.t.Helper()
	return c.made(c.do(procMknod, func(e *encoder) {
		e.opaque(dir)
		e.text(name)
		e.u32(uint32(kind))
		if kind == typeRegular || kind == typeFolder {
			return
		}
		mode(m).write(e)
		if kind == typeBlock || kind == typeChar {
			e.u64(1<<32 | 3)
		}
	}))
}

func (c *client) readlink(h []byte) (string, status) {
	c.t.Helper()
	d, s := c.do(procReadlink, func(e *encoder) { e.opaque(h) })
	postAttr(d)
	target := ""
	if s == statusOK {
		target = string(d.opaque(4096))
	}
	c.whole(d, seen{})
	return target, s
}

func (c *client) read(h []byte, off uint64, n uint32) ([]byte, bool, status) {
	c.t.Helper()
	d, s := c.do(procRead, func(e *encoder) { e.opaque(h); e.u64(off); e.u32(n) })
	postAttr(d)
	if s != statusOK {
		c.whole(d, seen{})
		return nil, false, s
	}
	count, eof := d.u32(), d.flag()
	b := d.opaque(MaxIO)
	c.whole(d, seen{})
	if int(count) != len(b) {
		c.t.Fatalf("count %d, %d bytes", count, len(b))
	}
	return b, eof, s
}

func (c *client) write(h []byte, off uint64, how uint32, b []byte) status {
	c.t.Helper()
	d, s := c.do(procWrite, func(e *encoder) {
		e.opaque(h)
		e.u64(off)
		e.u32(uint32(len(b)))
		e.u32(how)
		e.opaque(b)
	})
	wcc(d)
	if s == statusOK {
		if n, done := d.u32(), d.u32(); n != uint32(len(b)) || done < how {
			c.t.Fatalf("wrote %d of %d, stability %d of %d", n, len(b), done, how)
		}
		d.u64()
	}
	c.whole(d, seen{})
	return s
}

func (c *client) commit(h []byte) (uint64, status) {
	c.t.Helper()
	d, s := c.do(procCommit, func(e *encoder) { e.opaque(h); e.u64(0); e.u32(0) })
	wcc(d)
	var verifier uint64
	if s == statusOK {
		verifier = d.u64()
	}
	c.whole(d, seen{})
	return verifier, s
}

func (c *client) unlink(proc uint32, dir []byte, name string) status {
	c.t.Helper()
	d, s := c.do(proc, func(e *encoder) { e.opaque(dir); e.text(name) })
	wcc(d)
	c.whole(d, seen{})
	return s
}

func (c *client) remove(dir []byte, name string) status { return c.unlink(procRemove, dir, name) }
func (c *client) rmdir(dir []byte, name string) status  { return c.unlink(procRmdir, dir, name) }

func (c *client) rename(from []byte, name string, to []byte, newName string) status {
	c.t.Helper()
	d, s := c.do(procRename, func(e *encoder) { e.opaque(from); e.text(name); e.opaque(to); e.text(newName) })
	wcc(d)
	wcc(d)
	c.whole(d, seen{})
	return s
}

func (c *client) link(h, dir []byte, name string) status {
	c.t.Helper()
	d, s := c.do(procLink, func(e *encoder) { e.opaque(h); e.opaque(dir); e.text(name) })
	postAttr(d)
	wcc(d)
	c.whole(d, seen{})
	return s
}

func (c *client) access(h []byte, ask uint32) uint32 {
	c.t.Helper()
	d, s := c.do(procAccess, func(e *encoder) { e.opaque(h); e.u32(ask) })
	if s != statusOK {
		c.t.Fatalf("access: %v", s)
	}
	postAttr(d)
	have := d.u32()
	c.whole(d, seen{})
	return have
}

// name is an entry of a listing.
type name struct {
	name   string
	file   uint64
	cookie uint64
	attr   *seen
	handle []byte
}

// page reads one piece of a listing.
func (c *client) page(dir []byte, cookie uint64, count uint32, plus bool) (names []name, eof bool, st status) {
	c.t.Helper()
	proc := uint32(procReaddir)
	if plus {
		proc = procReaddirplus
	}
	d, st := c.do(proc, func(e *encoder) {
		e.opaque(dir)
		e.u64(cookie)
		e.u64(0)
		e.u32(count)
		if plus {
			e.u32(count)
		}
	})
	if before := len(d.b) + 4; st == statusOK && before > int(count) {
		c.t.Errorf("a listing of %d bytes, at most %d were asked for", before, count)
	}
	postAttr(d)
	if st != statusOK {
		c.whole(d, seen{})
		return nil, false, st
	}
	d.u64()
	for d.flag() {
		n := name{file: d.u64(), name: string(d.opaque(255)), cookie: d.u64()}
		if plus {
			n.attr = postAttr(d)
			if d.flag() {
				n.handle = d.opaque(handleMax)
			}
		}
		names = append(names, n)
	}
	eof = d.flag()
	c.whole(d, seen{})
	return names, eof, st
}

// list reads a whole listing.
func (c *client) list(dir []byte, count uint32, plus bool) []name {
	c.t.Helper()
	var all []name
	for cookie := uint64(0); ; {
		names, eof, st := c.page(dir, cookie, count, plus)
		if st != statusOK {
			c.t.Fatalf("list: %v", st)
		}
		all = append(all, names...)
		if eof {
			return all
		}
		if len(names) == 0 {
			c.t.Fatal("a piece of a listing without names")
		}
		cookie = names[len(names)-1].cookie
	}
}

// want fails the test unless a status is what it should be.
func want(tb testing.TB, what string, got, want status) {
	tb.Helper()
	if got != want {
		tb.Errorf("%s: %v, want %v", what, got, want)
	}
}

// must fails the test now.
func must(tb testing.TB, what string, got status) {
	tb.Helper()
	if got != statusOK {
		tb.Fatalf("%s: %v", what, got)
	}
}
