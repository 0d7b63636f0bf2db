package guestproto

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"
)

const (
	// Version is the newest version of the protocol that this build speaks.
	Version = 1
	// MinVersion is the oldest one it still speaks: saved machines carry their
	// harness with them and wake under newer daemons.
	MinVersion = 1

	// PortName is the name of the virtio-serial port that carries the pipe.
	PortName = "aegis.ctl"
	// VsockPort is the guest's vsock port for drivers that have no serial port.
	VsockPort = 7776
	// MagicArg is the kernel command line argument with the first magic, in hex.
	MagicArg = "aegis.magic"

	// HelloInterval is how often the host repeats an opening until its echo.
	HelloInterval = 100 * time.Millisecond
)

// Magic is the secret that marks an opening in the byte stream. The one on a
// kernel command line is known to all clones of a template; the first Hello after
// a start replaces it with one that only this instance and the host know.
type Magic [24]byte

// Nonce tells one opening from the next.
type Nonce [16]byte

// OpeningSize is the size of an opening on the wire: Magic, then Nonce.
const OpeningSize = len(Magic{}) + len(Nonce{})

// NewMagic returns a random magic.
func NewMagic() Magic {
	var m Magic
	_, _ = rand.Read(m[:]) // never fails, see crypto/rand
	return m
}

// NewNonce returns a random nonce.
func NewNonce() Nonce {
	var n Nonce
	_, _ = rand.Read(n[:]) // never fails, see crypto/rand
	return n
}

// String returns the magic in hex, as MagicArg and JSON carry it.
func (m Magic) String() string { return hex.EncodeToString(m[:]) }

// MarshalText implements encoding.TextMarshaler.
func (m Magic) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *Magic) UnmarshalText(text []byte) error {
	if hex.DecodedLen(len(text)) != len(m) {
		return fmt.Errorf("magic of %d hex digits, want %d", len(text), hex.EncodedLen(len(m)))
	}
	_, err := hex.Decode(m[:], text)
	return err
}

// Opening returns the bytes that open a session: the magic, then the nonce.
func Opening(m Magic, n Nonce) []byte { return append(m[:], n[:]...) }

// Scanner finds openings in a byte stream, also across reads. The zero value with
// a Magic is ready.
type Scanner struct {
	Magic Magic
	held  []byte // a suffix of the input that may be the start of an opening
}

// Scan consumes p. It returns the bytes that belong to the stream before the
// first opening found, the nonce of that opening (nil if none), and the rest of
// the input, which the caller scans next. Both slices are valid until the next
// call. Bytes that may begin an opening are held back until the next call.
func (s *Scanner) Scan(p []byte) (before []byte, nonce *Nonce, rest []byte) {
	buf := p
	if len(s.held) > 0 {
		buf = append(bytes.Clone(s.held), p...)
	}
	s.held = nil
	i := bytes.Index(buf, s.Magic[:])
	switch {
	case i >= 0 && len(buf) >= i+OpeningSize:
		n := Nonce(buf[i+len(s.Magic) : i+OpeningSize])
		return buf[:i], &n, buf[i+OpeningSize:]
	case i < 0:
		i = len(buf) - partial(buf, s.Magic[:])
	}
	s.held = bytes.Clone(buf[i:])
	return buf[:i], nil, nil
}

// partial returns the length of the longest suffix of b that is a proper prefix
// of magic.
func partial(b, magic []byte) int {
	for n := min(len(magic)-1, len(b)); n > 0; n-- {
		if bytes.HasSuffix(b, magic[:n]) {
			return n
		}
	}
	return 0
}
