package nfs

// attr is a file as the guest sees it.
type attr struct {
	stat

	uid, gid uint32 // in the guest
	mode     uint32 // in the guest
	fileID   uint64
}

// guestAttr combines what the host says with what is recorded.
func (v *volume) guestAttr(st stat, rec record) attr {
	a := attr{stat: st, mode: rec.guestMode(st.mode), fileID: fileID(st.id)}
	a.uid, a.gid = v.owners.guest(st, rec)
	if st.id == v.top {
		a.fileID = rootFileID
	}
	return a
}

// rootFileID is the file number of every export's root. No file system gives it to
// anything but its own root.
const rootFileID = 1

// fileID makes one number out of inode and device.
func fileID(id ident) uint64 { return id.ino ^ id.dev*0x9e3779b97f4a7c15 }

// fattrSize is the size of fattr3.
const fattrSize = 84

// fattr writes fattr3.
func (r *reply) fattr(v *volume, a attr) {
	r.u32(uint32(a.kind))
	r.u32(a.mode)
	r.u32(a.links)
	r.u32(a.uid)
	r.u32(a.gid)
	r.u64(a.size)
	r.u64(a.used)
	r.u32(a.rdev[0])
	r.u32(a.rdev[1])
	r.u64(v.id)
	r.u64(a.fileID)
	r.time(a.atime)
	r.time(a.mtime)
	r.time(a.ctime)
}

// time writes nfstime3, which begins in 1970 and ends in 2106.
func (r *reply) time(m moment) {
	r.u32(uint32(min(max(m.sec, 0), 1<<32-1)))
	r.u32(m.nsec)
}

// postAttr writes post_op_attr; nil is not known.
func (r *reply) postAttr(v *volume, a *attr) {
	r.flag(a != nil)
	if a != nil {
		r.fattr(v, *a)
	}
}

// wcc writes wcc_data: what an object was before and is after an operation. A client
// whose idea of it is what it was before keeps what it knows.
func (r *reply) wcc(v *volume, before *stat, after *attr) {
	r.flag(before != nil)
	if before != nil {
		r.u64(before.size)
		r.time(before.mtime)
		r.time(before.ctime)
	}
	r.postAttr(v, after)
}
