package nfs

import "encoding/binary"

// A handle is: version u8, kind u8, two zeros, export u64, inode u64, birth u64, device
// u64, all big-endian. Those of roots have zeros after the export.
const (
	handleSize    = 36
	handleMax     = 64 // of NFS version 3
	handleVersion = 1
	handleRoot    = 0
	handleInode   = 1
)

// handle writes the handle of an inode.
func (r *reply) handle(v *volume, id ident) {
	var b [handleSize]byte
	v.putHandle(&b, id)
	r.opaque(b[:])
}

func (v *volume) putHandle(b *[handleSize]byte, id ident) {
	b[0], b[1] = handleVersion, handleInode
	binary.BigEndian.PutUint64(b[4:], v.id)
	if id == v.top {
		b[1] = handleRoot
		return
	}
	binary.BigEndian.PutUint64(b[12:], id.ino)
	binary.BigEndian.PutUint64(b[20:], id.gen)
	binary.BigEndian.PutUint64(b[28:], id.dev)
}

// resolve reads a handle: the export it belongs to, and the inode in it.
func (s *Server) resolve(b []byte) (*volume, ident, error) {
	if len(b) != handleSize || b[0] != handleVersion || b[1] > handleInode || b[2] != 0 || b[3] != 0 {
		return nil, ident{}, errBadHandle
	}
	v := s.byID[binary.BigEndian.Uint64(b[4:])]
	if v == nil {
		return nil, ident{}, errStale // of an export that is not served any more
	}
	id := ident{
		ino: binary.BigEndian.Uint64(b[12:]),
		gen: binary.BigEndian.Uint64(b[20:]),
		dev: binary.BigEndian.Uint64(b[28:]),
	}
	if b[1] == handleRoot {
		if id != (ident{}) {
			return nil, ident{}, errBadHandle
		}
		return v, v.top, nil
	}
	return v, id, nil
}
