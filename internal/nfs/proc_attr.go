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
		r.changed(nil, nil, err)
		return
	}
	before := o.st
	if guard != nil && *guard != before.ctime {
		err = errNotSync
	} else {
		err = r.change(o, c)
	}
	r.changed(o, &before, err)
}

func (r *request) access() {
	handle, ask := r.handleArg(), r.args.u32()
	if r.args.bad {
		return
	}
	o, err := r.object(handle)
	if r.told(o, err) {
		r.out.u32(r.call.cred.access(o.attr(), ask, o.v.readOnly))
	}
}

func (r *request) readlink() {
	handle := r.handleArg()
	if r.args.bad {
		return
	}
	o, err := r.object(handle)
	target := ""
	switch {
	case err != nil:
	case o.st.kind != typeSymlink:
		err = errInval
	default:
		target, err = o.readlink()
	}
	if r.told(o, err) {
		r.out.text(target)
	}
}
