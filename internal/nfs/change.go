package nfs

import (
	"time"

	"golang.org/x/sys/unix"
)

// timeArg is set_atime or set_mtime.
type timeArg struct {
	how uint32
	at  moment
}

const (
	timeKeep   = 0
	timeServer = 1
	timeClient = 2
)

// changes is sattr3: what is to become of a file.
type changes struct {
	mode, uid, gid *uint32
	size           *uint64
	atime, mtime   timeArg
}

func (r *request) changesArg() (c changes) {
	word := func() *uint32 {
		if !r.args.flag() {
			return nil
		}
		v := r.args.u32()
		return &v
	}
	c.mode, c.uid, c.gid = word(), word(), word()
	if r.args.flag() {
		v := r.args.u64()
		c.size = &v
	}
	c.atime, c.mtime = r.timeArg(), r.timeArg()
	return c
}

func (r *request) timeArg() (t timeArg) {
	switch t.how = r.args.u32(); t.how {
	case timeKeep, timeServer:
	case timeClient:
		t.at = r.momentArg()
	default:
		r.args.bad = true
	}
	return t
}

func (r *request) momentArg() moment {
	m := moment{sec: int64(r.args.u32()), nsec: r.args.u32()}
	if m.nsec >= 1e9 {
		r.args.bad = true
	}
	return m
}

// allowed reports whether the one who asks may make the changes to a file.
func (c changes) allowed(who cred, a attr) error {
	switch {
	case c.mode != nil && !who.owns(a),
		c.uid != nil && *c.uid != a.uid && !who.root(),
		c.gid != nil && *c.gid != a.gid && !who.root() && (!who.owns(a) || !who.in(*c.gid)),
		(c.uid != nil || c.gid != nil) && !who.owns(a),
		(c.atime.how == timeClient || c.mtime.how == timeClient) && !who.owns(a):
		return errPerm
	case c.size != nil && !who.owns(a) && !who.may(a, mayWrite),
		(c.atime.how == timeServer || c.mtime.how == timeServer) && !who.owns(a) && !who.may(a, mayWrite):
		return errAccess
	case c.size != nil && a.kind == typeFolder:
		return errIsDir
	case c.size != nil && a.kind != typeRegular:
		return errInval
	case c.size != nil && *c.size > maxFileSize:
		return errFBig
	case c.mode != nil && a.kind == typeSymlink:
		return errNotSupp
	}
	return nil
}

// maxFileSize is where offsets of the host end.
const maxFileSize = 1<<63 - 1

// newMode returns the mode that a file has after the changes. As on Linux, a new owner
// or new contents end the rights that programs lend.
func (c changes) newMode(who cred, a attr) uint32 {
	mode := a.mode
	if a.kind != typeFolder && (c.uid != nil || c.gid != nil || c.size != nil && !who.root()) {
		mode = withoutSetID(mode)
	}
	if c.mode == nil {
		return mode
	}
	mode = *c.mode & bitsAll
	gid := a.gid
	if c.gid != nil {
		gid = *c.gid
	}
	if !who.root() && !who.in(gid) {
		mode &^= bitSetGID
	}
	return mode
}

// withoutSetID takes set-user-ID, and set-group-ID where it is not for locks.
func withoutSetID(mode uint32) uint32 {
	if mode&0o010 != 0 {
		return mode &^ bitsSetID
	}
	return mode &^ (bitsSetID &^ bitSetGID)
}

// change makes the changes to o.
func (r *request) change(o *object, c changes) error {
	if o.v.readOnly {
		return errROFS
	}
	a := o.attr()
	who := r.call.cred
	if err := c.allowed(who, a); err != nil {
		return err
	}
	if c.size != nil {
		if err := o.truncate(int64(*c.size)); err != nil { //nolint:gosec // checked to fit
			return err
		}
	}
	uid, gid := a.uid, a.gid
	if c.uid != nil {
		uid = *c.uid
	}
	if c.gid != nil {
		gid = *c.gid
	}
	if err := o.own(uid, gid, c.newMode(who, a)); err != nil {
		return err
	}
	return o.setTimes(c.atime, c.mtime)
}

// own makes o somebody's, with a mode, both as the guest sees them.
func (o *object) own(uid, gid, mode uint32) error {
	old := o.v.recordOf(o)
	rec := old
	if mode != old.guestMode(o.st.mode) {
		if err := o.setHostMode(mode); err != nil {
			return err
		}
		rec = rec.withMode(mode, o.st.mode)
	}
	if rec = o.v.owners.owned(rec, o.st, uid, gid); rec == old {
		return nil
	}
	return o.keep(rec)
}

// setHostMode gives o what it is to have on the host, for a mode in the guest. What the
// host's user may not change, or the file system cannot keep, is recorded like
// everything else that the host does not know.
func (o *object) setHostMode(mode uint32) error {
	want := o.v.hostMode(o.st.kind, mode)
	if want == o.st.mode {
		return nil
	}
	if err := o.chmod(want); err != nil && !isErr(err, unix.EPERM, unix.ENOTSUP) {
		return err
	}
	return o.refresh()
}

func (o *object) truncate(size int64) error {
	f, err := o.opened(true)
	if err != nil {
		return err
	}
	defer o.v.files.release(f)
	if err := again(func() error { return unix.Ftruncate(f.fd, size) }); err != nil {
		return err
	}
	o.v.files.touched(f)
	return o.refresh()
}

func (o *object) setTimes(atime, mtime timeArg) error {
	if atime.how == timeKeep && mtime.how == timeKeep {
		return nil
	}
	now := time.Now()
	value := func(t timeArg, old moment) unix.Timespec {
		m := old
		switch t.how {
		case timeServer:
			m = moment{now.Unix(), uint32(now.Nanosecond())} //nolint:gosec // below 1e9
		case timeClient:
			m = t.at
		}
		return unix.NsecToTimespec(m.sec*1e9 + int64(m.nsec))
	}
	if err := o.utimes([2]unix.Timespec{value(atime, o.st.atime), value(mtime, o.st.mtime)}); err != nil {
		return err
	}
	return o.refresh()
}

// endSetID ends what a file's program lends, because somebody has written to it.
func (r *request) endSetID(o *object, a attr) error {
	if r.call.cred.root() || a.mode&bitsSetID == 0 || withoutSetID(a.mode) == a.mode {
		return nil
	}
	return o.own(a.uid, a.gid, withoutSetID(a.mode))
}
