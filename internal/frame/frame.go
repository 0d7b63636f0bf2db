package frame

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Type says what a frame's payload is.
type Type uint8

// The frame types. Stdin, Resize, Signal and EOF travel towards the process,
// Stdout, Stderr, Notice and Exit away from it, Ack both ways.
const (
	Stdin  Type = 0 // bytes for standard input
	Stdout Type = 1 // bytes of standard output, or of the terminal
	Stderr Type = 2 // bytes of standard error
	Resize Type = 3 // columns u16, rows u16
	Signal Type = 4 // Linux signal number u8
	Exit   Type = 5 // status i32; the last frame away from the process
	EOF    Type = 6 // end of standard input; empty
	Ack    Type = 7 // u64: offset up to which the receiver has kept the stream; host <-> guest only
	Error  Type = 8 // JSON of an api.Error: the stream ends without an exit status
	Notice Type = 9 // a word to the user beside the output, JSON: of an api.Error to clients, of a guestproto.OOM from guests
)

const (
	// HeaderSize is the number of bytes before a payload.
	HeaderSize = 5
	// MaxPayload bounds what a peer can make the reader allocate.
	MaxPayload = 1 << 20
)

// ErrTooLarge reports a header that announces more than MaxPayload bytes.
var ErrTooLarge = errors.New("frame larger than 1 MiB")

// Frame is one message of an attach stream.
type Frame struct {
	Type    Type
	Payload []byte
}

// Append appends the encoding of a frame to dst.
func Append(dst []byte, t Type, payload []byte) []byte {
	return append(AppendHeader(dst, t, len(payload)), payload...)
}

// AppendHeader appends the header of a frame whose payload has n bytes.
func AppendHeader(dst []byte, t Type, n int) []byte {
	dst = append(dst, byte(t))
	return binary.BigEndian.AppendUint32(dst, uint32(n)) //nolint:gosec // payloads are bounded by MaxPayload
}

// Write writes one frame with a single call of w.Write.
func Write(w io.Writer, t Type, payload []byte) error {
	if len(payload) > MaxPayload {
		return ErrTooLarge
	}
	_, err := w.Write(Append(make([]byte, 0, HeaderSize+len(payload)), t, payload))
	return err
}

// Reader decodes frames from a stream. Payloads are valid until the next call.
type Reader struct {
	r   io.Reader
	hdr [HeaderSize]byte
	buf []byte
}

// NewReader returns a Reader of r.
func NewReader(r io.Reader) *Reader { return &Reader{r: r} }

// Next reads one frame. It returns io.EOF at a frame boundary only;
// a stream that ends inside a frame gives io.ErrUnexpectedEOF.
func (r *Reader) Next() (Frame, error) {
	if _, err := io.ReadFull(r.r, r.hdr[:]); err != nil {
		return Frame{}, err
	}
	n := binary.BigEndian.Uint32(r.hdr[1:])
	if n > MaxPayload {
		return Frame{}, fmt.Errorf("%w: %d bytes of type %d", ErrTooLarge, n, r.hdr[0])
	}
	if uint32(cap(r.buf)) < n { //nolint:gosec // cap is at most MaxPayload
		r.buf = make([]byte, n)
	}
	p := r.buf[:n]
	if _, err := io.ReadFull(r.r, p); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return Frame{}, err
	}
	return Frame{Type: Type(r.hdr[0]), Payload: p}, nil
}

// Whole returns how many bytes at the start of b are whole frames.
func Whole(b []byte) int {
	n := 0
	for len(b)-n >= HeaderSize {
		size := HeaderSize + int(binary.BigEndian.Uint32(b[n+1:]))
		if len(b)-n < size {
			break
		}
		n += size
	}
	return n
}

// Winsize is the size of a terminal in characters.
type Winsize struct {
	Cols uint16 `json:"cols"`
	Rows uint16 `json:"rows"`
}

// Encode returns the payload of a Resize frame.
func (w Winsize) Encode() []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, w.Cols), w.Rows)
}

// Winsize decodes the payload of a Resize frame.
func (f Frame) Winsize() (Winsize, error) {
	if f.Type != Resize || len(f.Payload) != 4 {
		return Winsize{}, fmt.Errorf("resize frame of type %d with %d bytes", f.Type, len(f.Payload))
	}
	return Winsize{
		Cols: binary.BigEndian.Uint16(f.Payload),
		Rows: binary.BigEndian.Uint16(f.Payload[2:]),
	}, nil
}

// EncodeStatus returns the payload of an Exit frame.
func EncodeStatus(status int32) []byte {
	return binary.BigEndian.AppendUint32(nil, uint32(status)) //nolint:gosec // two's complement on the wire
}

// Status decodes the payload of an Exit frame: 0-255, or 128+n for signal n.
func (f Frame) Status() (int32, error) {
	if f.Type != Exit || len(f.Payload) != 4 {
		return 0, fmt.Errorf("exit frame of type %d with %d bytes", f.Type, len(f.Payload))
	}
	return int32(binary.BigEndian.Uint32(f.Payload)), nil //nolint:gosec // two's complement on the wire
}

// EncodeOffset returns the payload of an Ack frame.
func EncodeOffset(off uint64) []byte { return binary.BigEndian.AppendUint64(nil, off) }

// Offset decodes the payload of an Ack frame.
func (f Frame) Offset() (uint64, error) {
	if f.Type != Ack || len(f.Payload) != 8 {
		return 0, fmt.Errorf("ack frame of type %d with %d bytes", f.Type, len(f.Payload))
	}
	return binary.BigEndian.Uint64(f.Payload), nil
}
