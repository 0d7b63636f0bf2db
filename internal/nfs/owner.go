package nfs

import (
	"fmt"
	"strconv"
	"strings"
)

// record is what is kept beside a file because the host's own file cannot say it, or
// must not. -1 is nothing.
//
// Its text is "uid gid mode under": decimal, decimal, octal, octal, "-" for nothing.
type record struct {
	uid, gid int64
	// mode is the one that the guest sees for as long as the host's is under: if the
	// host's user changes it, his is the one that counts.
	mode, under int32
}

var noRecord = record{-1, -1, -1, -1}

func (r record) String() string {
	field := func(v int64, base int) string {
		if v < 0 {
			return "-"
		}
		return strconv.FormatInt(v, base)
	}
	return fmt.Sprintf("%s %s %s %s", field(r.uid, 10), field(r.gid, 10), field(int64(r.mode), 8), field(int64(r.under), 8))
}

// parseRecord reads a record's text. What is no record is none: the attribute may be
// anybody's.
func parseRecord(b []byte) record {
	fields := strings.Fields(string(b))
	if len(fields) != 4 {
		return noRecord
	}
	bad := false
	field := func(s string, base, bits int) int64 {
		if s == "-" {
			return -1
		}
		v, err := strconv.ParseUint(s, base, bits)
		bad = bad || err != nil
		return int64(v) //nolint:gosec // of at most 32 bits
	}
	r := record{uid: field(fields[0], 10, 32), gid: field(fields[1], 10, 32)}
	r.mode, r.under = int32(field(fields[2], 8, 12)), int32(field(fields[3], 8, 12)) //nolint:gosec // of at most 12 bits
	if bad || (r.mode < 0) != (r.under < 0) {
		return noRecord
	}
	return r
}

func (r record) guestMode(host uint32) uint32 {
	if r.mode >= 0 && uint32(r.under) == host { //nolint:gosec // not negative
		return uint32(r.mode)
	}
	return host
}

// withMode returns r for a file whose mode is mode in the guest and host on the host.
func (r record) withMode(mode, host uint32) record {
	r.mode, r.under = -1, -1
	if mode != host {
		r.mode, r.under = int32(mode), int32(host) //nolint:gosec // of 12 bits
	}
	return r
}

// owners translates between users of host and guest.
type owners struct {
	uid, gid uint32 // on the host: who is root in the guest
}

// guest returns whom a file belongs to in the guest.
func (o owners) guest(st stat, rec record) (uid, gid uint32) {
	uid, gid = squash(st.uid, o.uid), squash(st.gid, o.gid)
	if rec.uid >= 0 {
		uid = uint32(rec.uid) //nolint:gosec // of 32 bits
	}
	if rec.gid >= 0 {
		gid = uint32(rec.gid) //nolint:gosec // of 32 bits
	}
	return uid, gid
}

// squash makes root's of what is self's, and nobody's of what is root's.
func squash(id, self uint32) uint32 {
	switch id {
	case self:
		return 0
	case 0:
		return nobodyID
	}
	return id
}

// owned returns r for a file that belongs to uid and gid in the guest, and on the host
// as st says.
func (o owners) owned(r record, st stat, uid, gid uint32) record {
	r.uid, r.gid = -1, -1
	natural, group := o.guest(st, r)
	if uid != natural {
		r.uid = int64(uid)
	}
	if gid != group {
		r.gid = int64(gid)
	}
	return r
}
