package nfs

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func own(uid, gid int64) set {
	s := keep
	s.uid, s.gid = uid, gid
	return s
}

func size(n int64) set {
	s := keep
	s.size = n
	return s
}

// is compares how a file looks to the guest.
func (c *client) is(h []byte, mode, uid, gid uint32) {
	c.t.Helper()
	a, st := c.getattr(h)
	if st != statusOK || a.mode != mode || a.uid != uid || a.gid != gid {
		c.t.Errorf("mode %#o, owner %d:%d, %v; want %#o, %d:%d", a.mode, a.uid, a.gid, st, mode, uid, gid)
	}
}

func hostMode(t *testing.T, path string) os.FileMode {
	t.Helper()
	fi, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fi.Mode()
}

func TestOwners(t *testing.T) { bothUsers(t, testOwners) }

func testOwners(t *testing.T) {
	t.Helper()
	dir, r, c, root := folder(t)
	c.is(root, 0o755, 0, 0)
	h, a, st := c.create(root, "file", createGuarded, mode(0o644))
	must(t, "create", st)
	if a.uid != 0 || a.gid != 0 {
		t.Errorf("root's file is %d:%d's", a.uid, a.gid)
	}
	fi, err := os.Stat(filepath.Join(dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	if sys := fi.Sys().(*syscall.Stat_t); int(sys.Uid) != os.Geteuid() {
		t.Errorf("on the host it is %d's", sys.Uid)
	}
	must(t, "chown", c.setattr(h, own(1000, 100)))
	c.is(h, 0o644, 1000, 100)
	must(t, "chown one", c.setattr(h, own(-1, 7)))
	c.is(h, 0o644, 1000, 7)
	sub, _, st := c.mkdir(root, "sub", 0o750)
	must(t, "mkdir", st)
	must(t, "chown a folder", c.setattr(sub, own(33, 33)))
	link, _, st := c.symlink(root, "link", "file")
	must(t, "symlink", st)
	must(t, "chown a link", c.setattr(link, own(5, 6)))
	fifo, _, st := c.mknod(root, "fifo", typeFIFO, 0o620)
	must(t, "mknod", st)
	must(t, "chown a pipe", c.setattr(fifo, own(8, 9)))
	c.is(fifo, 0o620, 8, 9)
	c.is(link, 0o777, 5, 6)
	if sys := hostStat(t, filepath.Join(dir, "file")); int(sys.Uid) != os.Geteuid() {
		t.Errorf("after chown it is %d's on the host", sys.Uid)
	}

	// Who makes something owns it.
	user := c.as(1000, 100, 4)
	must(t, "chmod", c.setattr(root, mode(0o1777)))
	mine, a, st := user.create(root, "mine", createGuarded, mode(0o600))
	must(t, "create", st)
	if a.uid != 1000 || a.gid != 100 {
		t.Errorf("made by 1000:100, %d:%d's", a.uid, a.gid)
	}
	// In a folder with set-group-ID all is of its group.
	must(t, "chgrp", c.setattr(sub, set{mode: 0o2777, uid: -1, gid: 44, size: -1}))
	in, _, st := user.create(sub, "in", createGuarded, mode(0o640))
	must(t, "create", st)
	user.is(in, 0o640, 1000, 44)
	below, _, st := user.mkdir(sub, "below", 0o755)
	must(t, "mkdir", st)
	user.is(below, 0o2755, 1000, 44)

	for range 2 {
		c.is(h, 0o644, 1000, 7)
		c.is(sub, 0o2777, 33, 44)
		c.is(mine, 0o600, 1000, 100)
		c.is(below, 0o2755, 1000, 44)
		for _, n := range c.list(root, 4096, true) {
			switch n.name {
			case "file":
				if n.attr.uid != 1000 || n.attr.gid != 7 {
					t.Errorf("listed as %d:%d's", n.attr.uid, n.attr.gid)
				}
			case "sub":
				if n.attr.mode != 0o2777 || n.attr.uid != 33 {
					t.Errorf("listed as %#o, %d's", n.attr.mode, n.attr.uid)
				}
			}
		}
		r.close()
		r = serve(t, Options{}, Export{Name: "/", Dir: dir, ID: 7})
		c = r.client()
	}
	// What goes back to root needs no record.
	must(t, "chown back", c.setattr(h, own(0, 0)))
	if n, err := placeOf(t, filepath.Join(dir, "file")).getxattr(xattr, make([]byte, 64)); err == nil {
		t.Errorf("a record of %d bytes is left", n)
	}
}

func hostStat(t *testing.T, path string) *syscall.Stat_t {
	t.Helper()
	fi, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fi.Sys().(*syscall.Stat_t)
}

func placeOf(t *testing.T, path string) place {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return place{fd: int(f.Fd())}
}

func TestModes(t *testing.T) { bothUsers(t, testModes) }

func testModes(t *testing.T) {
	t.Helper()
	dir, r, c, root := folder(t)
	path := filepath.Join(dir, "prog")
	h, _, st := c.create(root, "prog", createGuarded, mode(0o755))
	must(t, "create", st)
	must(t, "chmod", c.setattr(h, mode(0o6755)))
	c.is(h, 0o6755, 0, 0)
	if m := hostMode(t, path); m&(os.ModeSetuid|os.ModeSetgid) != 0 || m.Perm() != 0o755 {
		t.Errorf("on the host: %v", m)
	}
	// A new owner and new contents end what a program lends.
	must(t, "chown", c.setattr(h, own(1000, 1000)))
	c.is(h, 0o755, 1000, 1000)
	must(t, "chmod by the owner", c.as(1000, 1000).setattr(h, mode(0o6755)))
	c.is(h, 0o6755, 1000, 1000)
	must(t, "chown with chmod", c.setattr(h, set{mode: 0o4711, uid: 1001, gid: -1, size: -1}))
	c.is(h, 0o4711, 1001, 1000)
	must(t, "write by root", c.write(h, 0, unstable, []byte("x")))
	c.is(h, 0o4711, 1001, 1000)
	must(t, "write by its owner", c.as(1001, 1).write(h, 0, unstable, []byte("x")))
	c.is(h, 0o711, 1001, 1000)
	must(t, "chmod", c.setattr(h, mode(0o6755)))
	must(t, "truncate by its owner", c.as(1001, 1).setattr(h, size(0)))
	c.is(h, 0o755, 1001, 1000)
	must(t, "set-group-ID for locks", c.setattr(h, mode(0o2745)))
	must(t, "write by its owner", c.as(1001, 1).write(h, 0, unstable, []byte("x")))
	c.is(h, 0o2745, 1001, 1000)
	must(t, "set-group-ID by one who is not in the group", c.as(1001, 1).setattr(h, mode(0o2755)))
	c.is(h, 0o755, 1001, 1000)
	must(t, "and by one who is", c.as(1001, 1, 1000).setattr(h, mode(0o2755)))
	c.is(h, 0o2755, 1001, 1000)
	must(t, "sticky", c.setattr(root, mode(0o1777)))
	c.is(root, 0o1777, 0, 0)
	if m := hostMode(t, dir); m&os.ModeSticky == 0 {
		t.Errorf("on the host: %v", m)
	}
	// What the host's user sets counts from then on.
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	c.is(h, 0o640, 1001, 1000)
	// Host files with the bits keep them.
	if err := os.Chmod(path, 0o4755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	c.is(h, 0o4755, 1001, 1000)
	_ = r
}

// TestRootIsNotBound: modes do not keep root in the guest from anything, whoever the
// daemon is, nor over its end.
func TestRootIsNotBound(t *testing.T) { bothUsers(t, testRootIsNotBound) }

func testRootIsNotBound(t *testing.T) {
	t.Helper()
	dir, r, c, root := folder(t)
	h, _, st := c.create(root, "locked", createGuarded, mode(0o444))
	must(t, "create 0444", st)
	must(t, "write by its maker", c.write(h, 0, fileSync, []byte("one")))
	c.is(h, 0o444, 0, 0)
	if m := hostMode(t, filepath.Join(dir, "locked")); m.Perm() != 0o444 {
		t.Errorf("on the host: %v", m)
	}
	shut, _, st := c.mkdir(root, "shut", 0)
	must(t, "mkdir 0000", st)
	inner, _, st := c.mkdir(shut, "inner", 0o555)
	must(t, "mkdir within", st)
	deep, _, st := c.create(inner, "deep", createGuarded, mode(0))
	must(t, "create 0000", st)
	must(t, "write", c.write(deep, 0, unstable, []byte("deep")))
	must(t, "chown 0000", c.setattr(deep, own(7, 7)))
	// Made on the host by the daemon's user.
	write(t, filepath.Join(dir, "host/file"), "host")
	for path, m := range map[string]os.FileMode{"host/file": 0o400, "host": 0o500} {
		if err := os.Chmod(filepath.Join(dir, path), m); err != nil {
			t.Fatal(err)
		}
	}
	r.close()
	r = serve(t, Options{}, Export{Name: "/", Dir: dir, ID: 7})
	c = r.client()
	if got := c.text(deep); got != "deep" {
		t.Errorf("deep: %s", got)
	}
	c.is(deep, 0, 7, 7)
	c.is(shut, 0, 0, 0)
	c.is(inner, 0o555, 0, 0)
	must(t, "write after a restart", c.write(h, 3, unstable, []byte(" two")))
	if got := c.text(h); got != "one two" {
		t.Errorf("locked: %s", got)
	}
	c.is(h, 0o444, 0, 0)
	host := c.walk(root, "host")
	file := c.walk(host, "file")
	must(t, "write to a file of the host", c.write(file, 0, unstable, []byte("HOST")))
	c.is(file, 0o400, 0, 0)
	must(t, "rename in a folder of the host", c.rename(host, "file", host, "renamed"))
	c.is(host, 0o500, 0, 0)
	must(t, "move a folder that is not writable", c.rename(shut, "inner", root, "inner"))
	must(t, "remove", c.remove(inner, "deep"))
	must(t, "rmdir", c.rmdir(root, "inner"))
	must(t, "rmdir", c.rmdir(root, "shut"))
	if got := c.list(host, 4096, true); len(got) != 3 {
		t.Errorf("listed: %v", got)
	}
	// A mode that the host's user gives counts, what was opened up or not.
	if err := os.Chmod(filepath.Join(dir, "host"), 0o711); err != nil {
		t.Fatal(err)
	}
	c.is(host, 0o711, 0, 0)
}

// TestUsersAreBound: others in the guest are, by what the guest sees.
func TestUsersAreBound(t *testing.T) { bothUsers(t, testUsersAreBound) }

func testUsersAreBound(t *testing.T) {
	t.Helper()
	_, _, c, root := folder(t)
	user, friend, stranger := c.as(1000, 1000), c.as(1001, 2000, 1000), c.as(1002, 1002)
	home, _, st := c.mkdir(root, "home", 0o755)
	must(t, "mkdir", st)
	must(t, "chown", c.setattr(home, own(1000, 1000)))
	h, _, st := user.create(home, "file", createGuarded, mode(0o640))
	must(t, "create", st)
	must(t, "write", user.write(h, 0, unstable, []byte("text")))
	_, _, st = stranger.create(home, "x", createGuarded, mode(0o600))
	want(t, "create by a stranger", st, errAccess)
	want(t, "remove by a stranger", stranger.remove(home, "file"), errAccess)
	want(t, "rename by a stranger", stranger.rename(home, "file", home, "x"), errAccess)
	want(t, "link by a stranger", stranger.link(h, home, "x"), errAccess)
	_, _, st = stranger.mkdir(home, "x", 0o700)
	want(t, "mkdir by a stranger", st, errAccess)
	want(t, "chmod by a stranger", stranger.setattr(h, mode(0o777)), errPerm)
	want(t, "chown by a stranger", stranger.setattr(h, own(1002, -1)), errPerm)
	want(t, "chown by the owner", user.setattr(h, own(1002, -1)), errPerm)
	want(t, "chgrp by the owner to a group that is not his", user.setattr(h, own(-1, 5)), errPerm)
	want(t, "truncate by a stranger", stranger.setattr(h, size(0)), errAccess)
	want(t, "write by a stranger", stranger.write(h, 0, unstable, []byte("evil")), errAccess)
	want(t, "write by one of the group", friend.write(h, 0, unstable, []byte("evil")), errAccess)
	_, _, st = stranger.read(h, 0, 10)
	want(t, "read by a stranger", st, errAccess)
	if b, _, st := friend.read(h, 0, 10); st != statusOK || string(b) != "text" {
		t.Errorf("read by one of the group: %q, %v", b, st)
	}
	for _, a := range []struct {
		who  *client
		have uint32
	}{
		{c, accessRead | accessModify | accessExtend},
		{user, accessRead | accessModify | accessExtend},
		{friend, accessRead},
		{stranger, 0},
	} {
		if got := a.who.access(h, 0x3f); got != a.have {
			t.Errorf("uid %d may %#x, want %#x", a.who.cred.uid, got, a.have)
		}
	}
	if got := stranger.access(home, 0x3f); got != accessRead|accessLookup {
		t.Errorf("a stranger may %#x in the folder", got)
	}
	// A folder that may be entered and not read, and the other way round.
	must(t, "chmod", c.setattr(home, mode(0o711)))
	if _, _, st := stranger.page(home, 0, 4096, false); st != errAccess {
		t.Errorf("list: %v", st)
	}
	_, st = stranger.lookup(home, "file")
	want(t, "lookup", st, statusOK)
	must(t, "chmod", c.setattr(home, mode(0o744)))
	if _, _, st := stranger.page(home, 0, 4096, false); st != statusOK {
		t.Errorf("list: %v", st)
	}
	_, st = stranger.lookup(home, "file")
	want(t, "lookup", st, errAccess)
	// What is open stays so for its owner.
	must(t, "chmod", user.setattr(h, mode(0)))
	must(t, "write by the owner", user.write(h, 0, unstable, []byte("TEXT")))
	// A sticky folder.
	tmp, _, st := c.mkdir(root, "tmp", 0o1777)
	must(t, "mkdir", st)
	_, _, st = user.create(tmp, "his", createGuarded, mode(0o666))
	must(t, "create", st)
	want(t, "remove another's from a sticky folder", stranger.remove(tmp, "his"), errPerm)
	want(t, "rename another's in a sticky folder", stranger.rename(tmp, "his", tmp, "x"), errPerm)
	_, _, st = stranger.create(tmp, "own", createGuarded, mode(0o666))
	must(t, "create", st)
	want(t, "replace another's in a sticky folder", stranger.rename(tmp, "own", tmp, "his"), errPerm)
	must(t, "remove one's own", user.remove(tmp, "his"))
	// Nobody has no more than others.
	anon := *c
	anon.cred = nobody
	_, _, st = anon.create(home, "x", createGuarded, mode(0o600))
	want(t, "create by nobody", st, errAccess)
}

func TestTimesAndSizes(t *testing.T) { bothUsers(t, testTimesAndSizes) }

func testTimesAndSizes(t *testing.T) {
	t.Helper()
	dir, _, c, root := folder(t)
	h, _, st := c.create(root, "file", createGuarded, mode(0o666))
	must(t, "create", st)
	s := keep
	s.atime, s.mtime = timeArg{timeClient, moment{1e9, 5}}, timeArg{timeClient, moment{4294967295, 999999999}}
	must(t, "utimes", c.setattr(h, s))
	if a, _ := c.getattr(h); a.atime != s.atime.at || a.mtime != s.mtime.at {
		t.Errorf("%+v", a)
	}
	s = keep
	s.mtime.how = timeServer
	must(t, "touch", c.as(1000, 1000).setattr(h, s)) // who may write may do that
	if a, _ := c.getattr(h); time.Since(time.Unix(a.mtime.sec, 0)).Abs() > time.Minute || a.atime != (moment{1e9, 5}) {
		t.Errorf("%+v", a)
	}
	s.mtime = timeArg{timeClient, moment{1, 1}}
	want(t, "utimes by a stranger", c.as(1000, 1000).setattr(h, s), errPerm)
	must(t, "chmod", c.setattr(h, mode(0o644)))
	s.mtime = timeArg{how: timeServer}
	want(t, "touch by a stranger", c.as(1000, 1000).setattr(h, s), errAccess)

	must(t, "grow", c.setattr(h, size(5<<30)))
	if a, _ := c.getattr(h); a.size != 5<<30 || a.used > 1<<20 {
		t.Errorf("a sparse file of %d bytes takes %d", a.size, a.used)
	}
	must(t, "write far out", c.write(h, 4<<30, unstable, []byte("far")))
	if b, _, st := c.read(h, 4<<30-1, 5); st != statusOK || string(b) != "\x00far\x00" {
		t.Errorf("%q, %v", b, st)
	}
	must(t, "shrink", c.setattr(h, size(3)))
	if b, eof, st := c.read(h, 0, 100); len(b) != 3 || !eof || st != statusOK {
		t.Errorf("%q, %v, %v", b, eof, st)
	}
	if b, eof, st := c.read(h, 1<<40, 100); len(b) != 0 || !eof || st != statusOK {
		t.Errorf("behind the end: %q, %v, %v", b, eof, st)
	}
	for _, off := range []uint64{1<<63 - 1, 1 << 63, 1<<64 - 1} {
		want(t, "write at the end of numbers", c.write(h, off, unstable, []byte("x")), errFBig)
		if _, _, st := c.read(h, off, 1); st != errInval {
			t.Errorf("read there: %v", st)
		}
	}
	// The guard.
	a, _ := c.getattr(h)
	guarded := func(m moment) status {
		d, st := c.do(procSetattr, func(e *encoder) {
			e.opaque(h)
			mode(0o600).write(e)
			e.flag(true)
			e.u32(uint32(m.sec))
			e.u32(m.nsec)
		})
		wcc(d)
		return st
	}
	want(t, "another guard", guarded(moment{a.ctime.sec, a.ctime.nsec + 1}), errNotSync)
	want(t, "the guard", guarded(a.ctime), statusOK)
	sub, _, st := c.mkdir(root, "sub", 0o755)
	must(t, "mkdir", st)
	want(t, "truncate a folder", c.setattr(sub, size(0)), errIsDir)
	_, _, st = c.read(sub, 0, 1)
	want(t, "read a folder", st, errIsDir)
	want(t, "write a folder", c.write(sub, 0, unstable, []byte("x")), errIsDir)
	want(t, "remove a folder", c.remove(root, "sub"), errIsDir)
	want(t, "rmdir a file", c.rmdir(root, "file"), errNotDir)
	write(t, filepath.Join(dir, "sub/x"), "")
	want(t, "rmdir a full folder", c.rmdir(root, "sub"), errNotEmpty)
	want(t, "rename a folder into itself", c.rename(root, "sub", sub, "y"), errInval)
	for kind, wanted := range map[fileType]status{typeBlock: errPerm, typeChar: errPerm, typeRegular: errBadType, typeFolder: errBadType, typeSocket: statusOK, typeFIFO: statusOK} {
		_, a, st := c.mknod(root, "node", kind, 0o640)
		want(t, "mknod", st, wanted)
		if st == statusOK {
			if a.kind != kind || a.mode != 0o640 {
				t.Errorf("%+v", a)
			}
			must(t, "remove", c.remove(root, "node"))
		}
	}
}
