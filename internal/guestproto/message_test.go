package guestproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestMessageLimits(t *testing.T) {
	var b bytes.Buffer
	err := WriteMessage(&b, Message{Type: TypeSpawn}, Spawn{Command: []string{strings.Repeat("x", MaxMessage)}})
	if !errors.Is(err, ErrTooLarge) || b.Len() != 0 {
		t.Errorf("a large message: %v, %d bytes written", err, b.Len())
	}
	for _, c := range []struct {
		in   string
		want error
	}{
		{"", io.EOF},
		{"\x00\x00", io.ErrUnexpectedEOF},
		{"\x00\x00\x00\x05{}", io.ErrUnexpectedEOF},
		{"\x00\x00\x00\x05", io.ErrUnexpectedEOF},
		{"\x7f\xff\xff\xff{}", ErrTooLarge},
	} {
		if _, err := ReadMessage(strings.NewReader(c.in)); !errors.Is(err, c.want) {
			t.Errorf("ReadMessage(%q) = %v, want %v", c.in, err, c.want)
		}
	}
	if err := (Message{Type: TypeSpawn}).Decode(&Spawn{}); err == nil {
		t.Error("a body was decoded out of nothing")
	}
}

func FuzzReadMessage(f *testing.F) {
	var b bytes.Buffer
	_ = WriteMessage(&b, Message{ID: 7, Type: TypeKill}, Kill{ID: "a", Signal: 9})
	f.Add(b.Bytes())
	f.Add([]byte("\x00\x00\x00\x02{}"))
	f.Add([]byte("\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := ReadMessage(bytes.NewReader(in))
		if err != nil {
			return
		}
		if n := binary.BigEndian.Uint32(in); int(n) > len(in)-4 {
			t.Fatalf("read a message of %d bytes out of %d", n, len(in))
		}
		for _, body := range []any{&Welcome{}, &Frozen{}, &Stats{}, &OOM{}, &Spawned{}, &StreamReply{}} {
			_ = m.Decode(body) // must not panic
		}
		var again bytes.Buffer
		if err := WriteMessage(&again, m, nil); err != nil && !errors.Is(err, ErrTooLarge) {
			t.Fatalf("a message that was read cannot be written: %v", err)
		}
	})
}
