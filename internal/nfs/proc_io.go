package nfs

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// opened returns the open file of o, which is to be released.
func (o *object) opened(write bool) (*file, error) {
	if o.file != nil && (o.file.write || !write) {
		o.v.files.retain(o.file)
		return o.file, nil
	}
	if f := o.v.files.get(o.st.id, write); f != nil {
		return f, nil
	}
	flags := unix.O_RDONLY
	if write {
		flags = unix.O_RDWR
	}
	fd := -1
	err := o.unlocked(func() (err error) {
		fd, err = o.open(flags)
		return err
	})
	if err != nil {
		return nil, err
	}
	// Where a place is a name, it may have become another file's.
	if st, err := (place{fd: fd}).stat(); err != nil || o.v.local(st).id != o.st.id {
		place{fd: fd}.close()
		return nil, errStale
	}
	return o.v.files.put(o.st.id, fd, write), nil
}

// regular refuses what has no contents to read or write.
func (o *object) regular() error {
	if o.st.kind == typeFolder {
		return errIsDir
	}
	if o.st.kind != typeRegular {
		return errInval
	}
	return nil
}

// readHead is what stands between an answer's header and the data of a READ: status,
// attributes, count, end of file, length.
const readHead = 4 + 4 + fattrSize + 4 + 4 + 4

func (r *request) read() {
	handle, off, count := r.handleArg(), r.args.u64(), r.args.u32()
	if r.args.bad {
		return
	}
	o, err := r.object(handle)
	if err != nil {
		r.told(nil, err)
		return
	}
	switch a := o.attr(); {
	case o.regular() != nil:
		err = o.regular()
	case off > maxFileSize-MaxIO:
		err = errInval
	case !r.call.cred.mayUse(a, mayRead):
		err = errAccess
	default:
		err = r.readData(o, int64(off), count)
	}
	if err != nil {
		r.told(o, err)
	}
}

// readData reads into the answer itself, behind the place of what is known only then.
func (r *request) readData(o *object, off int64, count uint32) error {
	f, err := o.opened(false)
	if err != nil {
		return err
	}
	defer o.v.files.release(f)
	n := int(min(count, MaxIO))
	if left := int64(o.st.size) - off; left < int64(n) { //nolint:gosec // of a file on the host
		n = int(max(0, left)) // what is appended meanwhile comes with the next read
	}
	head := replyHeader + readHead
	if err := r.room(head + n + 3); err != nil {
		return err
	}
	b := r.out.b[:head+n]
	if n, err = readAt(f.fd, b[head:], off); err != nil {
		return err
	}
	if err := o.refresh(); err != nil {
		return err
	}
	r.told(o, nil)
	r.out.u32(uint32(n))                                        //nolint:gosec // at most MaxIO
	r.out.flag(off+int64(n) >= int64(o.st.size))                //nolint:gosec // as above
	r.out.b = binary.BigEndian.AppendUint32(r.out.b, uint32(n)) //nolint:gosec // as above
	r.out.b = b[:head+n]
	r.out.pad(n)
	return nil
}

// room makes the answer's buffer one of at least n bytes.
func (r *request) room(n int) error {
	if n <= cap(r.out.b) {
		return nil
	}
	buf := r.s.buffers.get(n, r.ctx.Done())
	if buf == nil {
		return errJukebox
	}
	r.out.b = append(buf.b[:0], r.out.b...)
	r.s.buffers.put(r.out.buf)
	r.out.buf = buf
	return nil
}

// stable_how.
const (
	unstable = 0
	dataSync = 1
	fileSync = 2
)

func (r *request) write() {
	handle, off, count, how := r.handleArg(), r.args.u64(), r.args.u32(), r.args.u32()
	data := r.args.opaque(MaxIO)
	if how > fileSync || uint64(count) > uint64(len(data)) {
		r.args.bad = true
	}
	if r.args.bad {
		return
	}
	o, err := r.object(handle)
	if err != nil {
		r.changed(nil, nil, err)
		return
	}
	before, a := o.st, o.attr()
	switch {
	case o.v.readOnly:
		err = errROFS
	case o.regular() != nil:
		err = o.regular()
	case off > maxFileSize-MaxIO:
		err = errFBig
	case !r.call.cred.mayUse(a, mayWrite):
		err = errAccess
	default:
		err = r.writeData(o, a, int64(off), data[:count], how)
	}
	if r.changed(o, &before, err) {
		r.out.u32(count)
		r.out.u32(how)
		r.out.u64(r.s.boot)
	}
}

func (r *request) writeData(o *object, a attr, off int64, data []byte, how uint32) error {
	f, err := o.opened(true)
	if err != nil {
		return err
	}
	defer o.v.files.release(f)
	if err := r.endSetID(o, a); err != nil {
		return err
	}
	put := func() error {
		o.v.files.touched(f)
		return writeAt(f.fd, data, off)
	}
	if how == unstable {
		return put()
	}
	return o.v.syncer.write(f, put)
}

func (r *request) commit() {
	handle := r.handleArg()
	r.args.u64() // where it begins, and how much: all is synced
	r.args.u32()
	if r.args.bad {
		return
	}
	o, err := r.object(handle)
	if err != nil {
		r.changed(nil, nil, err)
		return
	}
	before := o.st
	if err = o.regular(); err == nil && !o.v.readOnly {
		err = o.commit()
	}
	if r.changed(o, &before, err) {
		r.out.u64(r.s.boot)
	}
}

func (o *object) commit() error {
	f, err := o.opened(false)
	if isErr(err, unix.EACCES) {
		f, err = o.opened(true)
	}
	if err != nil {
		return err
	}
	defer o.v.files.release(f)
	return o.v.syncer.commit(f)
}
