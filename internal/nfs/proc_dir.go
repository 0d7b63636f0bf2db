package nfs

func (r *request) readdir() {
	handle, cookie := r.handleArg(), r.args.u64()
	r.args.u64() // cookies need no verifier
	count := r.args.u32()
	if r.args.bad {
		return
	}
	r.list(handle, cookie, count, count, false)
}

func (r *request) readdirplus() {
	handle, cookie := r.handleArg(), r.args.u64()
	r.args.u64() // as above
	names, most := r.args.u32(), r.args.u32()
	if r.args.bad {
		return
	}
	r.list(handle, cookie, names, most, true)
}

// maxListReply bounds an answer with a listing.
const maxListReply = 256 << 10

// lister writes the entries of one answer.
type lister struct {
	r    *request
	dir  *object
	plus bool
	// what is left of the bytes for the answer, and of those for names alone
	most, names int
}

// list answers with the names after the cookie, as many as fit: into most bytes
// together, and into names bytes without attributes and handles.
func (r *request) list(handle []byte, cookie uint64, names, most uint32, plus bool) {
	dir, err := r.folder(handle)
	var after []listed
	var w *window
	if err == nil {
		if !r.call.cred.may(dir.attr(), mayRead) {
			err = errAccess
		} else {
			after, w, err = dir.v.lists.read(dir, cookie)
		}
	}
	if err != nil {
		r.status(err)
		r.out.postAttr(volumeOf(dir), dir.after())
		return
	}
	begin := len(r.out.b)
	a := dir.attr()
	r.status(nil)
	r.out.postAttr(dir.v, &a)
	r.out.u64(0) // the cookies' verifier
	const tail = 8
	l := lister{r: r, dir: dir, plus: plus, most: int(min(most, maxListReply)) - (len(r.out.b) - begin) - tail, names: int(min(names, maxListReply))}
	told, whole := l.all(cookie, after)
	whole = whole && w.whole
	if told == 0 && !whole {
		r.out.b = r.out.b[:begin]
		r.status(errTooSmall)
		r.out.postAttr(dir.v, &a)
		return
	}
	r.out.flag(false)
	r.out.flag(whole)
	dir.v.lists.keep(w, !whole)
}

// all writes what fits, and reports how many entries that is and whether it is all.
func (l *lister) all(cookie uint64, after []listed) (told int, whole bool) {
	dots := []listed{{entry{name: "."}, cookieSelf}, {entry{name: ".."}, cookieParent}}
	for _, d := range dots {
		if d.cookie <= cookie {
			continue
		}
		a := l.dir.attr()
		id, known := a.fileID, &a
		if d.cookie == cookieParent {
			id, known = l.parentID(), nil
		}
		if !l.put(d, id, known) {
			return told, false
		}
		told++
	}
	for _, e := range after {
		id, a := l.look(e.entry)
		if !l.put(e, id, a) {
			return told, false
		}
		told++
	}
	return told, true
}

// parentID returns the file number of the folder above.
func (l *lister) parentID() uint64 {
	v := l.dir.v
	if l.dir.isRoot() {
		return rootFileID
	}
	leads, _ := v.nodes.leads(l.dir.st.id)
	if len(leads) == 0 || leads[0].spot.parent == v.nodes.root {
		return rootFileID
	}
	id, _ := v.nodes.ident(leads[0].spot.parent)
	return fileID(id)
}

// look returns the number of an entry, and what it is where that is asked for and
// known.
func (l *lister) look(e entry) (uint64, *attr) {
	v := l.dir.v
	id := fileID(ident{dev: l.dir.st.id.dev, ino: e.ino})
	if !l.plus && !v.byStat {
		return id, nil
	}
	st, err := l.dir.statChild(e.name)
	if err != nil || st.crossing {
		return id, nil // gone by now, or a mount
	}
	st = v.local(st)
	if !l.plus {
		return fileID(st.id), nil
	}
	n := v.nodes.add(l.dir.node, e.name, st.id)
	rec := v.readRecord(n, st, func(buf []byte) (int, error) { return l.dir.getxattrChild(e.name, xattr, buf) })
	a := v.guestAttr(st, rec)
	return a.fileID, &a
}

// put writes one entry if it fits.
func (l *lister) put(e listed, id uint64, a *attr) bool {
	out := l.r.out
	begin := len(out.b)
	out.flag(true)
	out.u64(id)
	out.text(e.name)
	out.u64(e.cookie)
	names := len(out.b) - begin
	if l.plus {
		out.postAttr(l.dir.v, a)
		out.flag(a != nil)
		if a != nil {
			out.handle(l.dir.v, a.id)
		}
	}
	all := len(out.b) - begin
	if all > l.most || names > l.names {
		out.b = out.b[:begin]
		return false
	}
	l.most -= all
	l.names -= names
	return true
}
