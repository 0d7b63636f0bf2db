package guestproto

import (
	"bytes"
	"testing"
)

func TestGoldenAPI(t *testing.T) {
	var b bytes.Buffer
	if err := WriteMessage(&b, Message{Type: TypeStream}, StreamHeader{Kind: StreamAPI}); err != nil {
		t.Fatal(err)
	}
	golden(t, "stream_api", append(bytes.Clone(b.Bytes()), '\n'))
}
