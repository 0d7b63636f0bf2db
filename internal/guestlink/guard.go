package guestlink

import (
	"encoding/binary"
	"errors"
	"net"
)

// guard is a connection to a guest that refuses what yamux would take from a peer
// it trusts: each ping is answered from a goroutine of its own, and each stream the
// peer opens has a buffer. A guest has no reason to do either.
type guard struct {
	net.Conn

	rest []byte // came behind the echo of the opening
	hdr  [headerSize]byte
	have int    // bytes of hdr
	body uint32 // bytes of data to let pass
	err  error
}

// The yamux header: version u8, type u8, flags u16, stream u32, length u32.
const (
	headerSize = 12
	typeData   = 0
	typePing   = 2
	flagSYN    = 1
)

func (g *guard) Read(p []byte) (int, error) {
	if g.err != nil {
		return 0, g.err
	}
	var n int
	var err error
	if len(g.rest) > 0 {
		n = copy(p, g.rest)
		g.rest = g.rest[n:]
	} else {
		n, err = g.Conn.Read(p)
	}
	if g.err = g.check(p[:n]); g.err != nil {
		return 0, g.err
	}
	return n, err
}

// check follows the frames in b.
func (g *guard) check(b []byte) error {
	for len(b) > 0 {
		if g.body > 0 {
			n := min(uint64(g.body), uint64(len(b)))
			g.body -= uint32(n) //nolint:gosec // at most body
			b = b[n:]
			continue
		}
		n := copy(g.hdr[g.have:], b)
		g.have += n
		b = b[n:]
		if g.have < headerSize {
			return nil
		}
		g.have = 0
		kind, flags := g.hdr[1], binary.BigEndian.Uint16(g.hdr[2:])
		switch {
		case flags&flagSYN != 0 && kind == typePing:
			return errors.New("the guest sent a ping")
		case flags&flagSYN != 0:
			return errors.New("the guest opened a stream")
		case kind == typeData:
			g.body = binary.BigEndian.Uint32(g.hdr[8:])
		}
	}
	return nil
}
