package guestproto

import (
	"bytes"
	"slices"
)

// Scanner finds openings in a byte stream, wherever reads cut it. The zero value
// with a Magic is ready.
//
// It holds nothing back from a running session: the byte a request ends with may
// be the one a magic begins with, and would never arrive. So a session that is
// about to be ended may see the first bytes of the opening that ends it. Only right
// after an opening, where repetitions of it may follow, are bytes kept until it is
// certain that they are not one.
type Scanner struct {
	// Magic is the one in force.
	Magic Magic
	// Next, if not nil, is accepted too: a Hello asked for it, and the guest does not
	// know yet that its Welcome arrived. Until then the host opens with Magic.
	Next *Magic

	fresh bool   // nothing but openings came since the last opening
	kept  []byte // fresh: the start of what may be a repetition; else the last bytes already given out
}

// Found is an opening in a stream.
type Found struct {
	Magic Magic
	Nonce Nonce
}

// Scan consumes p. It returns the bytes before the first opening, that opening
// (nil if there is none), and the rest of the input, which the caller scans next.
// The slices are valid until the next call.
func (s *Scanner) Scan(p []byte) (before []byte, found *Found, rest []byte) {
	if s.fresh {
		return s.scanFresh(p)
	}
	n := len(s.kept) // these were given out by earlier calls
	head := slices.Concat(s.kept, p[:min(len(p), OpeningSize-1)])
	if at := s.index(head); at >= 0 && at < n {
		return s.open(head[at:at+OpeningSize], p[:0], p[at+OpeningSize-n:])
	}
	if at := s.index(p); at >= 0 {
		return s.open(p[at:at+OpeningSize], p[:at], p[at+OpeningSize:])
	}
	if len(p) >= OpeningSize-1 {
		head = p
	}
	s.kept = bytes.Clone(head[max(0, len(head)-OpeningSize+1):])
	return p, nil, nil
}

func (s *Scanner) open(b, before, rest []byte) ([]byte, *Found, []byte) {
	s.fresh, s.kept = true, nil
	return before, &Found{Magic: Magic(b[:len(Magic{})]), Nonce: Nonce(b[len(Magic{}):])}, rest
}

func (s *Scanner) scanFresh(p []byte) (before []byte, found *Found, rest []byte) {
	if len(s.kept) > 0 {
		p = slices.Concat(s.kept, p)
	}
	s.kept = nil
	switch {
	case len(p) == 0:
		return nil, nil, nil
	case !s.mayBegin(p):
		s.fresh = false
		return s.Scan(p)
	case len(p) >= OpeningSize:
		return s.open(p[:OpeningSize], p[:0], p[OpeningSize:])
	}
	s.kept = bytes.Clone(p)
	return nil, nil, nil
}

// index returns where the first complete opening in b starts, or -1.
func (s *Scanner) index(b []byte) int {
	b = b[:max(0, len(b)-len(Nonce{}))] // a magic needs its nonce behind it
	at := bytes.Index(b, s.Magic[:])
	if s.Next != nil {
		if i := bytes.Index(b, s.Next[:]); i >= 0 && (at < 0 || i < at) {
			at = i
		}
	}
	return at
}

// mayBegin reports whether b is an opening, or the start of one.
func (s *Scanner) mayBegin(b []byte) bool {
	n := min(len(b), len(s.Magic))
	return bytes.Equal(b[:n], s.Magic[:n]) || s.Next != nil && bytes.Equal(b[:n], s.Next[:n])
}
