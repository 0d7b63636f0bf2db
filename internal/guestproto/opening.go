package guestproto

import (
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
	// VsockArg makes the harness listen on VsockPort instead of opening a serial port.
	VsockArg = "aegis.link=vsock"

	// CardPort is the guest's vsock port for drivers that cannot give the daemon the
	// frames of a network card. There the guest makes itself a card, and serves its
	// frames: each after its length as u32 big-endian, both ways.
	CardPort = 7775
	// CardArg makes the harness do so. Its value is the card's hardware address.
	CardArg = "aegis.card"
	// MagicArg is the kernel command line argument with the first magic, in hex.
	MagicArg = "aegis.magic"

	// TemplateArg makes the harness stop short of the instance's disk until a Hello comes
	// that asks for it: what is saved before that is a template, of which every instance
	// with the same image can be a clone, whatever is on its disk.
	TemplateArg = "aegis.template"

	// DisksArg tells the names of the disks, in their order and joined by commas, to guests
	// of a VMM that cannot give disks serial numbers.
	DisksArg = "aegis.disks"

	// RestartArg tells the guest that it ends by a restart: its VMM has no power switch.
	RestartArg = "aegis.end=restart"

	// RuntimeArg is for the Go runtime of PID 1, which gets what the kernel does not know on its
	// command line as environment: signals that interrupt what takes long cost an emulated
	// guest more than it takes.
	RuntimeArg = "GODEBUG=asyncpreemptoff=1"

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
