package nfs

import (
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// xattr is where records are kept.
const xattr = "user.aegis.guest"

// maxRecord bounds what is read of it.
const maxRecord = 64

// memory keeps records of files that can have no attributes of the user's: symlinks
// and pipes everywhere, all files on some file systems.
type memory struct {
	mu sync.Mutex
	m  map[ident]record
}

// maxMemory bounds the records in memory. Beyond it the oldest knowledge is as good as
// any other to lose.
const maxMemory = 1 << 16

func (m *memory) get(id ident) record {
	m.mu.Lock()
	defer m.mu.Unlock()
	if rec, ok := m.m[id]; ok {
		return rec
	}
	return noRecord
}

func (m *memory) set(id ident, rec record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if rec == noRecord {
		delete(m.m, id)
		return
	}
	if m.m == nil {
		m.m = map[ident]record{}
	}
	if _, known := m.m[id]; !known && len(m.m) >= maxMemory {
		for other := range m.m {
			delete(m.m, other)
			break
		}
	}
	m.m[id] = rec
}

// CopyRecord gives an open file or folder what is recorded of another one. On a file
// system that has no attributes nothing is.
func CopyRecord(to, from *os.File) error {
	buf := make([]byte, maxRecord)
	n, err := unix.Fgetxattr(int(from.Fd()), xattr, buf)
	if err == nil {
		err = unix.Fsetxattr(int(to.Fd()), xattr, buf[:n], 0)
	}
	if err != nil && !isErr(err, errNoXattr, unix.ENOTSUP, unix.ENOSYS) {
		return &os.PathError{Op: "copy what is recorded", Path: to.Name(), Err: err}
	}
	return nil
}

// hasXattrs reports whether files of that kind can have attributes of the user's.
func hasXattrs(kind fileType) bool { return kind == typeRegular || kind == typeFolder }

// recordOf returns what is recorded of o.
func (v *volume) recordOf(o *object) record {
	return v.readRecord(o.node, o.st, func(buf []byte) (int, error) { return o.getxattr(xattr, buf) })
}

// readRecord returns what is recorded of a file. A change of a record changes the
// file's change time, so what was read at that time need not be read again. n may be
// nil.
func (v *volume) readRecord(n *node, st stat, read func([]byte) (int, error)) record {
	if !hasXattrs(st.kind) {
		return v.memory.get(st.id)
	}
	if n != nil {
		if rec, ok := v.nodes.record(n, st.ctime); ok {
			return rec
		}
	}
	buf := make([]byte, maxRecord)
	size, err := read(buf)
	rec := noRecord
	switch {
	case err == nil:
		rec = parseRecord(buf[:size])
	case isErr(err, unix.ENOTSUP, unix.ENOSYS):
		return v.memory.get(st.id)
	}
	if n != nil {
		v.nodes.setRecord(n, rec, st.ctime)
	}
	return rec
}

// keep records rec of o, and reads o's state again.
func (o *object) keep(rec record) error {
	v := o.v
	err := v.store(o, rec)
	if err != nil {
		return err
	}
	if err := o.refresh(); err != nil {
		return err
	}
	if hasXattrs(o.st.kind) {
		v.nodes.setRecord(o.node, rec, o.st.ctime)
	}
	return nil
}

func (v *volume) store(o *object, rec record) error {
	if !hasXattrs(o.st.kind) {
		v.memory.set(o.st.id, rec)
		return nil
	}
	write := func() error { return o.setxattr(xattr, []byte(rec.String())) }
	if rec == noRecord {
		write = func() error { return o.removexattr(xattr) }
	}
	err := write()
	if isErr(err, unix.EACCES) && v.mine(o.st) && o.st.mode&0o200 == 0 {
		// Not writable even by its owner, which does not bind root in the guest. A
		// moment of being so changes nothing for anybody else.
		if err := o.chmod(o.st.mode | 0o200); err != nil {
			return err
		}
		err = write()
		if again := o.chmod(o.st.mode); err == nil {
			err = again
		}
	}
	switch {
	case isErr(err, unix.ENOTSUP, unix.ENOSYS):
		v.warn()
		v.memory.set(o.st.id, rec)
		return nil
	case rec == noRecord && isErr(err, errNoXattr):
		return nil
	}
	return err
}

// mine reports whether the host lets this process change the mode of a file.
func (v *volume) mine(st stat) bool { return st.uid == v.euid && v.euid != 0 && !v.readOnly }

// unlock gives the owner of o all rights to it, where the host keeps them from him:
// root in the guest is not bound by modes, the daemon's user is. The guest goes on to
// see the old mode. It reports whether that changed anything.
func (o *object) unlock() bool {
	want := uint32(0o600)
	if o.st.kind == typeFolder {
		want = 0o700
	}
	if !hasXattrs(o.st.kind) || !o.v.mine(o.st) || o.st.mode&want == want {
		return false
	}
	rec := o.v.recordOf(o)
	mode := rec.guestMode(o.st.mode)
	if o.chmod(o.st.mode|want) != nil || o.refresh() != nil {
		return false
	}
	return o.keep(rec.withMode(mode, o.st.mode)) == nil
}

// unlocked does op, which needs rights that the owner of o has in the guest but
// perhaps not on the host.
func (o *object) unlocked(op func() error) error {
	err := op()
	if isErr(err, unix.EACCES) && o.unlock() {
		err = op()
	}
	return err
}

// walkIn resolves a path on which there are folders that their owner cannot search.
func (v *volume) walkIn(path string) (place, error) {
	here := &object{place: v.root, v: v, node: v.nodes.root}
	if err := here.refresh(); err != nil {
		return nowhere, err
	}
	for name := range strings.SplitSeq(path, "/") {
		next, err := here.child(name)
		here.close()
		if err != nil {
			return nowhere, err
		}
		here = next
	}
	return here.place, nil
}

// hostMode returns what a file gets on the host whose mode is to be mode in the guest.
// Bits that would lend somebody the rights of the host's user stay in the guest. An
// ordinary user must be able to find files again and read what is recorded of them, and
// to remove whole folders.
func (v *volume) hostMode(kind fileType, mode uint32) uint32 {
	mode &^= bitsSetID
	switch {
	case v.euid == 0:
	case kind == typeFolder:
		mode |= 0o700
	default:
		mode |= 0o400
	}
	return mode
}
