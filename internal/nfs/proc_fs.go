package nfs

// What FSINFO says of the server.
const (
	ioUnit       = 4096
	folderPref   = 128 << 10 // bytes of a listing in one answer
	canLink      = 0x01
	canSymlink   = 0x02
	isHomogenous = 0x08
	canSetTime   = 0x10
)

func (r *request) fsstat() {
	handle := r.handleArg()
	if r.args.bad {
		return
	}
	o, err := r.object(handle)
	var sp space
	if err == nil {
		sp, err = o.v.root.space()
	}
	if !r.told(o, err) {
		return
	}
	for _, n := range []uint64{sp.total, sp.free, sp.avail, sp.files, sp.freeFiles, sp.freeFiles} {
		r.out.u64(n)
	}
	r.out.u32(0) // it may change at any time
}

func (r *request) fsinfo() {
	handle := r.handleArg()
	if r.args.bad {
		return
	}
	if !r.told(r.object(handle)) {
		return
	}
	for range 2 { // reads, then writes: most, preferred, multiple of
		r.out.u32(MaxIO)
		r.out.u32(MaxIO)
		r.out.u32(ioUnit)
	}
	r.out.u32(folderPref)
	r.out.u64(maxFileSize)
	r.out.u32(0) // times are exact to a nanosecond
	r.out.u32(1)
	r.out.u32(canLink | canSymlink | isHomogenous | canSetTime)
}

// maxLinks is what the least of the usual file systems allows.
const maxLinks = 32000

func (r *request) pathconf() {
	handle := r.handleArg()
	if r.args.bad {
		return
	}
	if !r.told(r.object(handle)) {
		return
	}
	r.out.u32(maxLinks)
	r.out.u32(maxName)
	r.out.flag(true) // names that are too long are refused
	r.out.flag(true) // only root gives files away
	r.out.flag(caseInsensitive)
	r.out.flag(true) // case is kept
}
