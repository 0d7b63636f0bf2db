package nfs

// When a server was killed, the requests it was working on come again, and nobody knows
// whether they were done. Such a request has r.again set: that what it asks for is so
// already is no error then.

// removed reports whether a name that is not there may have been removed by r itself.
func (r *request) removed(err error) bool { return r.again && statusOf(err) == errNoEnt }

// madeBefore returns what is there under the name of what r was to make, if r may have
// made it itself.
func (r *request) madeBefore(dir *object, name string, kind fileType, target string, err error) (*object, bool) {
	if !r.again || statusOf(err) != errExist {
		return nil, false
	}
	o, err := dir.child(name)
	if err != nil {
		return nil, false
	}
	same := o.st.kind == kind
	if same && kind == typeSymlink {
		old, err := o.readlink()
		same = err == nil && old == target
	}
	if !same {
		o.close()
		return nil, false
	}
	return r.hold(o), true
}

// linkedBefore reports whether the name that r was to give o is o's.
func (r *request) linkedBefore(dir, o *object, name string, err error) bool {
	if !r.again || statusOf(err) != errExist {
		return false
	}
	st, err := dir.statChild(name)
	return err == nil && dir.v.local(st).id == o.st.id
}

// renamedBefore reports whether a file that is not there may have got its new name
// from r.
func (r *request) renamedBefore(to spotOf, err error) bool {
	if !r.removed(err) {
		return false
	}
	_, err = to.dir.statChild(to.name)
	return err == nil
}
