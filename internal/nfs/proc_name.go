package nfs

// dirReply is what every answer has that is about a folder: what it was and is.
type dirReply struct {
	dir    *object
	before stat
}

func newDirReply(dir *object) dirReply {
	if dir == nil {
		return dirReply{}
	}
	return dirReply{dir, dir.st}
}

// wcc writes the folder's state before and after.
func (r *request) wcc(d dirReply) {
	if d.dir == nil {
		r.out.wcc(nil, nil, nil)
		return
	}
	r.out.wcc(d.dir.v, &d.before, d.dir.after())
}

func (r *request) lookup() {
	e := r.entryArg()
	if r.args.bad {
		return
	}
	dir, err := r.folder(e.handle)
	var c *object
	if err == nil {
		c, err = r.find(dir, e.raw)
	}
	r.status(err)
	if err == nil {
		r.out.handle(c.v, c.st.id)
		r.attrOf(c)
	}
	r.attrOf(dir)
}

func (r *request) find(dir *object, raw []byte) (*object, error) {
	name, err := checkName(raw)
	if err != nil {
		return nil, err
	}
	if !r.call.cred.may(dir.attr(), mayExecute) {
		return nil, errAccess
	}
	c, err := dir.child(name)
	if err != nil {
		return nil, err
	}
	return r.hold(c), nil
}

func (r *request) remove() { r.unlink(false) }
func (r *request) rmdir()  { r.unlink(true) }

func (r *request) unlink(folder bool) {
	e := r.entryArg()
	if r.args.bad {
		return
	}
	dir, name, err := r.place(e)
	d := newDirReply(dir)
	if err == nil {
		err = r.unlinkIn(dir, name, folder)
	}
	r.status(err)
	r.wcc(d)
}

func (r *request) unlinkIn(dir *object, name string, folder bool) error {
	c, err := dir.child(name)
	if r.removed(err) {
		return nil
	}
	if err != nil {
		return err
	}
	r.hold(c)
	switch {
	case folder && c.st.kind != typeFolder:
		return errNotDir
	case !folder && c.st.kind == typeFolder:
		return errIsDir
	case !r.call.cred.mayRemove(dir.attr(), c.attr()):
		return errPerm
	}
	if err := dir.unlocked(func() error { return dir.unlink(name, folder) }); err != nil {
		return err
	}
	dir.v.nodes.forget(dir.node, name, c.st.id)
	r.lost(c)
	return nil
}

// lost notes that the guest has taken a name from a file, which had been as o.st says.
// The guest keeps names for what it has open: with the last one nobody uses it, and its
// handle is stale from this answer on.
func (r *request) lost(o *object) {
	if o.st.kind != typeFolder && o.st.links > 1 {
		return
	}
	v, id := o.v, o.st.id
	shut := v.files.drop(id)
	r.later(func() {
		shut()
		v.syncer.removed(id)
		v.memory.set(id, noRecord)
	})
}

func (r *request) rename() {
	from, to := r.entryArg(), r.entryArg()
	if r.args.bad {
		return
	}
	fromDir, name, err := r.place(from)
	toDir, newName, errTo := r.place(to)
	df, dt := newDirReply(fromDir), newDirReply(toDir)
	switch {
	case err != nil:
	case errTo != nil:
		err = errTo
	case fromDir.v != toDir.v:
		err = errXDev
	default:
		err = r.renameIn(spotOf{fromDir, name}, spotOf{toDir, newName})
	}
	r.status(err)
	r.wcc(df)
	r.wcc(dt)
}

// spotOf is a name in a folder that is open.
type spotOf struct {
	dir  *object
	name string
}

func (s spotOf) spot() spot { return spot{s.dir.node, s.name} }

func (r *request) renameIn(from, to spotOf) error {
	v := from.dir.v
	src, err := from.dir.child(from.name)
	if r.renamedBefore(to, err) {
		return nil
	}
	if err != nil {
		return err
	}
	r.hold(src)
	if !r.call.cred.mayRemove(from.dir.attr(), src.attr()) {
		return errPerm
	}
	var replaced *ident
	dst, err := to.dir.child(to.name)
	switch {
	case err == nil:
		r.hold(dst)
		if !r.call.cred.mayRemove(to.dir.attr(), dst.attr()) {
			return errPerm
		}
		if src.st.id == dst.st.id {
			return nil // two names of one file both stay
		}
		replaced = &dst.st.id
	case statusOf(err) != errNoEnt:
		return err
	}
	done := v.nodes.move()
	err = from.dir.unlocked(func() error {
		return to.dir.unlocked(func() error {
			return src.unlocked(func() error { return from.dir.rename(from.name, to.dir.place, to.name) })
		})
	})
	if err != nil {
		done(nil)
		return err
	}
	done(func() { v.nodes.renamed(src.st.id, from.spot(), to.spot(), replaced) })
	if replaced != nil {
		r.lost(dst)
	}
	return nil
}

func (r *request) link() {
	handle, e := r.handleArg(), r.entryArg()
	if r.args.bad {
		return
	}
	o, err := r.object(handle)
	dir, name, errDir := r.place(e)
	d := newDirReply(dir)
	switch {
	case err != nil:
	case errDir != nil:
		err = errDir
	case o.v != dir.v:
		err = errXDev
	case o.st.kind == typeFolder:
		err = errIsDir
	default:
		err = dir.unlocked(func() error { return o.link(dir.place, name) })
		if r.linkedBefore(dir, o, name, err) {
			err = nil
		}
	}
	if err == nil {
		o.v.nodes.add(dir.node, name, o.st.id)
	}
	r.status(err)
	r.out.postAttr(volumeOf(o), o.after())
	r.wcc(d)
}
