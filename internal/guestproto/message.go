package guestproto

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// MaxMessage bounds an encoded Message. A sender that exceeds it gets an error;
// nothing is sent.
const MaxMessage = 1 << 20

// ErrTooLarge reports a message over MaxMessage.
var ErrTooLarge = errors.New("message larger than 1 MiB")

// Message is one unit of a control stream: `length u32 big-endian`, then JSON.
type Message struct {
	ID    uint64          `json:"id,omitempty"`    // of a request and its answer; 0 in events and stream headers
	Type  Type            `json:"type"`            // of the request, the event or the header; answers repeat it
	Body  json.RawMessage `json:"body,omitempty"`  // the struct named like the type
	Error *Error          `json:"error,omitempty"` // answers only
}

// Type names what a Message is.
type Type string

// Error is a failure inside the guest, told to the host.
type Error struct {
	Code Code   `json:"code"`
	Msg  string `json:"msg"`
}

// Error implements error.
func (e *Error) Error() string { return e.Msg }

// Code classifies an Error.
type Code string

// The codes.
const (
	CodeNotFound      Code = "not_found"      // no such process, path or user
	CodeNoCommand     Code = "no_command"     // the command is not on the PATH (shells: 127)
	CodeNotExecutable Code = "not_executable" // the command cannot be executed (shells: 126)
	CodeInvalid       Code = "invalid"
	CodeExhausted     Code = "exhausted"   // out of memory, processes or disk in the guest
	CodeRootfs        Code = "rootfs"      // the root file system could not be mounted
	CodeVersion       Code = "version"     // no common protocol version
	CodeUnsupported   Code = "unsupported" // this harness does not have that ability
	CodeUnavailable   Code = "unavailable" // connection refused, not ready
	CodeInternal      Code = "internal"
)

// NewMessage returns a message with body as its body (nil for none).
func NewMessage(id uint64, t Type, body any) (Message, error) {
	m := Message{ID: id, Type: t}
	if body == nil {
		return m, nil
	}
	b, err := json.Marshal(body)
	if err != nil {
		return m, fmt.Errorf("encode %s: %w", t, err)
	}
	m.Body = b
	return m, nil
}

// WriteMessage encodes m with body as its body (nil for none) and writes it with
// a single call of w.Write.
func WriteMessage(w io.Writer, m Message, body any) error {
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("encode %s: %w", m.Type, err)
		}
		m.Body = b
	}
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode %s: %w", m.Type, err)
	}
	if len(b) > MaxMessage {
		return fmt.Errorf("%s: %w: %d bytes", m.Type, ErrTooLarge, len(b))
	}
	out := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(b)), uint32(len(b))) //nolint:gosec // bounded above
	_, err = w.Write(append(out, b...))
	return err
}

// ReadMessage reads one message. It returns io.EOF at a message boundary only.
func ReadMessage(r io.Reader) (Message, error) {
	var hdr [4]byte
	if _, err := io.ReadFull(r, hdr[:]); err != nil {
		return Message{}, err
	}
	n := binary.BigEndian.Uint32(hdr[:])
	if n > MaxMessage {
		return Message{}, fmt.Errorf("%w: %d bytes", ErrTooLarge, n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return Message{}, err
	}
	var m Message
	if err := json.Unmarshal(b, &m); err != nil {
		return Message{}, fmt.Errorf("decode message: %w", err)
	}
	return m, nil
}

// Decode decodes the message's body into out. Unknown fields are ignored: they
// belong to a newer version that both ends may speak.
func (m Message) Decode(out any) error {
	if len(m.Body) == 0 {
		return fmt.Errorf("%s without a body", m.Type)
	}
	if err := json.Unmarshal(m.Body, out); err != nil {
		return fmt.Errorf("decode %s: %w", m.Type, err)
	}
	return nil
}
