package nfs

func (r *request) getattr() {
	handle := r.handleArg()
	if r.args.bad {
		return
	}
	o, err := r.object(handle)
	r.status(err)
	if err == nil {
		r.out.fattr(o.v, o.attr())
	}
}

func (r *request) setattr() {
	handle, c := r.handleArg(), r.changesArg()
	var guard *moment
	if r.args.flag() {
		m := r.momentArg()
		guard = &m
	}
	if r.args.bad {
		return
	}
	o, err := r.object(handle)
	if err != nil {
		r.status(err)
		r.out.wcc(nil, nil, nil)
		return
	}
	before := o.st
	if guard != nil && *guard != before.ctime {
		err = errNotSync
	} else {
		err = r.change(o, c)
	}
	r.status(err)
	r.out.wcc(o.v, &before, o.after())
}

func (r *request) access() {
	handle, ask := r.handleArg(), r.args.u32()
	if r.args.bad {
		return
	}
	o, err := r.object(handle)
	r.status(err)
	if err != nil {
		r.out.postAttr(nil, nil)
		return
	}
	a := o.attr()
	r.out.postAttr(o.v, &a)
	r.out.u32(r.call.cred.access(a, ask, o.v.readOnly))
}

func (r *request) readlink() {
	handle := r.handleArg()
	if r.args.bad {
		return
	}
	o, err := r.object(handle)
	if err != nil {
		r.status(err)
		r.out.postAttr(nil, nil)
		return
	}
	target := ""
	if o.st.kind != typeSymlink {
		err = errInval
	} else {
		target, err = o.readlink()
	}
	a := o.attr()
	r.status(err)
	r.out.postAttr(o.v, &a)
	if err == nil {
		r.out.text(target)
	}
}
