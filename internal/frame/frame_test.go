package frame

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

func TestRoundTrip(t *testing.T) {
	var b bytes.Buffer
	if err := errors.Join(
		Write(&b, Stdout, []byte("hi")),
		Write(&b, Resize, Winsize{Cols: 80, Rows: 24}.Encode()),
		Write(&b, Ack, EncodeOffset(1<<40)),
		Write(&b, Exit, EncodeStatus(137)),
	); err != nil {
		t.Fatal(err)
	}
	if want := "\x01\x00\x00\x00\x02hi"; !bytes.HasPrefix(b.Bytes(), []byte(want)) {
		t.Errorf("encoding = %q, want prefix %q", b.Bytes(), want)
	}
	r := NewReader(&b)
	f, err := r.Next()
	if err != nil || f.Type != Stdout || string(f.Payload) != "hi" {
		t.Fatalf("first frame = %+v, %v", f, err)
	}
	f, _ = r.Next()
	if w, err := f.Winsize(); err != nil || w != (Winsize{80, 24}) {
		t.Errorf("Winsize = %v, %v", w, err)
	}
	f, _ = r.Next()
	if o, err := f.Offset(); err != nil || o != 1<<40 {
		t.Errorf("Offset = %v, %v", o, err)
	}
	f, _ = r.Next()
	if s, err := f.Status(); err != nil || s != 137 {
		t.Errorf("Status = %v, %v", s, err)
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("end = %v, want EOF", err)
	}
}

func TestRefusals(t *testing.T) {
	if err := Write(io.Discard, Stdout, make([]byte, MaxPayload+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("Write of too much = %v", err)
	}
	for in, want := range map[string]error{
		"\x01\x00":                 io.ErrUnexpectedEOF,
		"\x01\x00\x00\x00\x05abc":  io.ErrUnexpectedEOF,
		"\x01\xff\xff\xff\xffabcd": ErrTooLarge,
	} {
		if _, err := NewReader(bytes.NewReader([]byte(in))).Next(); !errors.Is(err, want) {
			t.Errorf("Next(%q) = %v, want %v", in, err, want)
		}
	}
	wrong := Frame{Type: Stdout, Payload: []byte("x")}
	if _, err := wrong.Winsize(); err == nil {
		t.Error("Winsize of a stdout frame")
	}
	if _, err := wrong.Status(); err == nil {
		t.Error("Status of a stdout frame")
	}
	if _, err := wrong.Offset(); err == nil {
		t.Error("Offset of a stdout frame")
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00\x02hi\x05\x00\x00\x00\x04\x00\x00\x00\x07"))
	f.Add([]byte("\x03\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := NewReader(bytes.NewReader(in))
		var out []byte
		for {
			fr, err := r.Next()
			if err != nil {
				break
			}
			out = Append(out, fr.Type, fr.Payload)
		}
		if !bytes.HasPrefix(in, out) {
			t.Fatalf("decoded frames encode to %q, not a prefix of %q", out, in)
		}
	})
}
