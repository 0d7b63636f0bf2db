package nfs

import "encoding/binary"

// The programs.
const (
	programNFS   = 100003
	programMount = 100005
	version3     = 3
)

// accept_stat of RFC 5531.
const (
	acceptSuccess     = 0
	acceptNoProgram   = 1
	acceptBadVersion  = 2
	acceptNoProcedure = 3
	acceptGarbage     = 4
)

// The kinds of credentials.
const (
	authNone = 0
	authSys  = 1
)

const (
	msgCall    = 0
	msgReply   = 1
	rpcVersion = 2
	maxAuth    = 400 // bytes of a credential
	maxGroups  = 16
)

// call is the header of a request.
type call struct {
	xid                    uint32
	program, version, proc uint32
	cred                   cred
	badCred                bool // of a kind that is not served
	badRPC                 bool // of another version of RPC
}

// parseCall reads a request's header; its arguments are what d has left. A message
// that is no request at all is not ok.
func parseCall(d *decoder) (c call, ok bool) {
	c.xid = d.u32()
	if d.u32() != msgCall || d.bad {
		return c, false
	}
	if d.u32() != rpcVersion {
		c.badRPC = true
		return c, !d.bad
	}
	c.program, c.version, c.proc = d.u32(), d.u32(), d.u32()
	flavor := d.u32()
	body := d.opaque(maxAuth)
	d.u32() // the verifier means nothing here
	d.opaque(maxAuth)
	switch flavor {
	case authNone:
		c.cred = nobody
	case authSys:
		c.cred, ok = parseCred(body)
		c.badCred = !ok
	default:
		c.badCred = true
	}
	return c, !d.bad
}

// parseCred reads authsys_parms.
func parseCred(body []byte) (cred, bool) {
	d := decoder{b: body}
	d.u32()       // a stamp
	d.opaque(255) // the machine's name
	c := cred{uid: d.u32(), gid: d.u32()}
	n := d.u32()
	if n > maxGroups {
		return c, false
	}
	for range n {
		c.groups = append(c.groups, d.u32())
	}
	return c, !d.bad
}

// reply is an answer under construction: a record of one fragment.
type reply struct {
	encoder

	buf   *buffer  // what it stands in, given back when it was sent
	after []func() // what is left to do when the guest has its answer
}

// finish does what is left when the answer was sent, or cannot be.
func (r *reply) finish() {
	for _, do := range r.after {
		do()
	}
}

const (
	recordMark  = 4
	lastMark    = 1 << 31
	replyHeader = recordMark + 24
)

// begin writes the header of an answer to a call that was accepted.
func (r *reply) begin(xid, accept uint32) {
	r.b = append(r.b[:0], 0, 0, 0, 0)
	r.u32(xid)
	r.u32(msgReply)
	r.u32(0) // accepted
	r.u32(authNone)
	r.u32(0)
	r.u32(accept)
}

// refuse answers a call that is not looked at: of another RPC version, or with
// credentials that are not understood.
func (r *reply) refuse(c call) {
	r.b = append(r.b[:0], 0, 0, 0, 0)
	r.u32(c.xid)
	r.u32(msgReply)
	r.u32(1) // denied
	if c.badRPC {
		r.u32(0) // RPC_MISMATCH: lowest and highest version
		r.u32(rpcVersion)
		r.u32(rpcVersion)
		return
	}
	r.u32(1) // AUTH_ERROR
	r.u32(1) // AUTH_BADCRED
}

// badVersion says which versions of a program there are.
func (r *reply) badVersion(xid uint32) {
	r.begin(xid, acceptBadVersion)
	r.u32(version3)
	r.u32(version3)
}

// record returns the finished answer with its record mark.
func (r *reply) record() []byte {
	binary.BigEndian.PutUint32(r.b, lastMark|uint32(len(r.b)-recordMark)) //nolint:gosec // about a megabyte at most
	return r.b
}
