package nfs

import (
	"encoding/binary"
	"strings"

	"golang.org/x/sys/unix"
)

// made writes the answer to a request that makes something.
func (r *request) made(c *object, d dirReply, err error) {
	r.status(err)
	if err == nil {
		r.out.flag(true)
		r.out.handle(c.v, c.st.id)
		r.attrOf(c)
	}
	r.wcc(d)
}

// settle gives what was just made the owner and mode it is to have, and the times. Its
// name goes again if that fails.
func (r *request) settle(dir, c *object, name string, c3 changes, mode uint32) error {
	who, parent := r.call.cred, dir.attr()
	gid := who.gid
	if parent.mode&bitSetGID != 0 {
		gid = parent.gid
		if c.st.kind == typeFolder {
			mode |= bitSetGID
		}
	}
	if c.st.kind == typeSymlink {
		mode = c.st.mode
	}
	c.v.nodes.setRecord(c.node, noRecord, c.st.ctime) // nothing needs to be read to know that
	err := c.adopt()
	if err == nil {
		err = c.own(who.uid, gid, mode)
	}
	c3.mode, c3.size = nil, nil
	if c3.uid != nil || c3.gid != nil || c3.atime.how != timeKeep || c3.mtime.how != timeKeep {
		if err == nil {
			err = r.change(c, c3)
		}
	}
	if err != nil {
		_ = dir.unlink(name, c.st.kind == typeFolder) // the first error tells more
	}
	return err
}

// adopt gives what was made to the host's user that the export belongs to.
func (o *object) adopt() error {
	w := o.v.owners
	if o.v.euid != 0 || o.st.uid == w.uid && o.st.gid == w.gid {
		return nil
	}
	if err := o.chown(int(w.uid), int(w.gid)); err != nil {
		return err
	}
	return o.refresh()
}

// orMode returns the mode that was asked for, or another one.
func (c changes) orMode(other uint32) uint32 {
	if c.mode == nil {
		return other
	}
	return *c.mode & bitsAll
}

// createmode3.
const (
	createUnchecked = 0
	createGuarded   = 1
	createExclusive = 2
)

func (r *request) create() {
	e := r.entryArg()
	how := r.args.u32()
	var c changes
	var verifier []byte
	switch how {
	case createUnchecked, createGuarded:
		c = r.changesArg()
	case createExclusive:
		verifier = r.args.take(8)
	default:
		r.args.bad = true
	}
	if r.args.bad {
		return
	}
	dir, name, err := r.place(e)
	d := newDirReply(dir)
	var o *object
	if err == nil {
		if how == createExclusive {
			o, err = r.createOnce(dir, name, verifier)
		} else {
			o, err = r.createFile(dir, name, c, how == createGuarded)
		}
	}
	r.made(o, d, err)
}

// createTries bounds the attempts to make a file where somebody else makes and removes
// one.
const createTries = 8

// createFile makes a file, or takes the one that is there unless that is refused.
func (r *request) createFile(dir *object, name string, c changes, guarded bool) (*object, error) {
	for range createTries {
		o, err := r.newFile(dir, name, c, c.orMode(0o644))
		if old, ok := r.madeBefore(dir, name, typeRegular, "", err); ok && guarded {
			return old, nil
		}
		if !isErr(err, unix.EEXIST) || guarded {
			return o, err
		}
		o, err = dir.child(name)
		if statusOf(err) == errNoEnt {
			continue
		}
		if err != nil {
			return nil, err
		}
		r.hold(o)
		if c.size == nil || o.st.kind != typeRegular {
			return o, nil
		}
		return o, r.change(o, changes{size: c.size})
	}
	return nil, errJukebox
}

// newFile makes a file that was not there. It stays open: whoever makes a file writes
// to it, whatever its mode.
func (r *request) newFile(dir *object, name string, c changes, mode uint32) (*object, error) {
	v := dir.v
	fd := -1
	err := dir.unlocked(func() (err error) {
		fd, err = dir.create(name, v.hostMode(typeRegular, mode))
		return err
	})
	if err != nil {
		return nil, err
	}
	o := &object{place: place{fd: fd}, v: v}
	if err := o.refresh(); err != nil {
		o.place.close()
		return nil, err
	}
	o.node = v.nodes.add(dir.node, name, o.st.id)
	o.file = v.files.put(o.st.id, fd, true)
	v.syncer.made(o.st.id)
	return r.hold(o), r.settle(dir, o, name, c, mode)
}

// createOnce makes a file unless it is there already, made by the same request. The
// request's verifier is kept in the file's times, where a new server finds it too; the
// guest sets them afterwards.
func (r *request) createOnce(dir *object, name string, verifier []byte) (*object, error) {
	half := func(b []byte) timeArg {
		return timeArg{timeClient, moment{sec: int64(binary.BigEndian.Uint32(b) & 0x7fffffff)}}
	}
	c := changes{atime: half(verifier), mtime: half(verifier[4:])}
	o, err := r.newFile(dir, name, c, 0o600)
	if !isErr(err, unix.EEXIST) {
		return o, err
	}
	if o, err = dir.child(name); err != nil {
		return nil, err
	}
	r.hold(o)
	if o.st.kind != typeRegular || o.st.size != 0 || o.st.atime != c.atime.at || o.st.mtime != c.mtime.at {
		return nil, errExist
	}
	return o, nil
}

// making is how something is made.
type making struct {
	kind   fileType
	mode   uint32
	target string // of a symlink
	do     func() error
}

// newChild makes something that is no file.
func (r *request) newChild(dir *object, name string, c changes, m making) (*object, error) {
	err := dir.unlocked(m.do)
	if o, ok := r.madeBefore(dir, name, m.kind, m.target, err); ok {
		return o, nil
	}
	if err != nil {
		return nil, err
	}
	o, err := dir.child(name)
	if err != nil {
		return nil, err
	}
	return r.hold(o), r.settle(dir, o, name, c, m.mode)
}

func (r *request) mkdir() {
	e, c := r.entryArg(), r.changesArg()
	if r.args.bad {
		return
	}
	dir, name, err := r.place(e)
	d := newDirReply(dir)
	var o *object
	if err == nil {
		mode := c.orMode(0o755)
		o, err = r.newChild(dir, name, c, making{kind: typeFolder, mode: mode, do: func() error {
			return dir.mkdir(name, dir.v.hostMode(typeFolder, mode))
		}})
	}
	r.made(o, d, err)
}

func (r *request) symlink() {
	e, c := r.entryArg(), r.changesArg()
	target := string(r.args.opaque(maxPathArg))
	if r.args.bad {
		return
	}
	dir, name, err := r.place(e)
	d := newDirReply(dir)
	var o *object
	switch {
	case err != nil:
	case len(target) == maxPathArg:
		err = errNameTooLong
	case target == "" || strings.IndexByte(target, 0) >= 0:
		err = errInval
	default:
		o, err = r.newChild(dir, name, c, making{kind: typeSymlink, target: target, do: func() error {
			return dir.symlink(target, name)
		}})
	}
	r.made(o, d, err)
}

func (r *request) mknod() {
	e := r.entryArg()
	kind := fileType(r.args.u32())
	var c changes
	switch kind {
	case typeSocket, typeFIFO:
		c = r.changesArg()
	case typeBlock, typeChar:
		c = r.changesArg()
		r.args.u64() // which device
	case typeRegular, typeFolder, typeSymlink:
	default:
		r.args.bad = true
	}
	if r.args.bad {
		return
	}
	dir, name, err := r.place(e)
	d := newDirReply(dir)
	var o *object
	switch {
	case err != nil:
	case kind == typeBlock || kind == typeChar:
		err = errPerm // they would be the host's
	case kind != typeSocket && kind != typeFIFO:
		err = errBadType
	default:
		mode := c.orMode(0o644)
		o, err = r.newChild(dir, name, c, making{kind: kind, mode: mode, do: func() error {
			return dir.mknod(name, kind, dir.v.hostMode(kind, mode))
		}})
	}
	r.made(o, d, err)
}
