package nfs

import "slices"

// cred is who asks, in the guest's own numbers. The guest's kernel vouches for it.
type cred struct {
	uid, gid uint32
	groups   []uint32
}

const nobodyID = 65534

var nobody = cred{uid: nobodyID, gid: nobodyID}

func (c cred) root() bool { return c.uid == 0 }

func (c cred) in(gid uint32) bool { return c.gid == gid || slices.Contains(c.groups, gid) }

// The rights of one class in a mode.
const (
	mayRead    = 4
	mayWrite   = 2
	mayExecute = 1
)

// may reports whether the mode of a file gives c all rights of want, as Linux
// decides it.
func (c cred) may(a attr, want uint32) bool {
	if c.root() {
		// Root may everything, but execute what nobody may.
		return want&mayExecute == 0 || a.kind == typeFolder || a.mode&0o111 != 0
	}
	rights := a.mode
	switch {
	case c.uid == a.uid:
		rights >>= 6
	case c.in(a.gid):
		rights >>= 3
	}
	return rights&want == want
}

// owns reports whether c may do what only the owner may.
func (c cred) owns(a attr) bool { return c.root() || c.uid == a.uid }

// mayUse is may for the contents of a file that was opened before: its owner keeps
// what he opened whatever its mode has become, and what may be executed may be read.
func (c cred) mayUse(a attr, want uint32) bool {
	return c.owns(a) || c.may(a, want) || want == mayRead && c.may(a, mayExecute)
}

// mayRemove reports whether c may take a name out of a folder: from a sticky one only
// what is his.
func (c cred) mayRemove(folder, file attr) bool {
	if !c.may(folder, mayWrite|mayExecute) {
		return false
	}
	return folder.mode&bitSticky == 0 || c.owns(file) || c.owns(folder)
}

// access3 bits.
const (
	accessRead    = 0x01
	accessLookup  = 0x02
	accessModify  = 0x04
	accessExtend  = 0x08
	accessDelete  = 0x10
	accessExecute = 0x20
)

// access returns which of the rights in ask c has.
func (c cred) access(a attr, ask uint32, readOnly bool) uint32 {
	var have uint32
	if c.may(a, mayRead) {
		have |= accessRead
	}
	if c.may(a, mayExecute) {
		if a.kind == typeFolder {
			have |= accessLookup
		} else {
			have |= accessExecute
		}
	}
	if !readOnly && c.may(a, mayWrite) {
		have |= accessModify | accessExtend
		if a.kind == typeFolder {
			have |= accessDelete
		}
	}
	return have & ask
}
