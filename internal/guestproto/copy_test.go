package guestproto

import (
	"bytes"
	"reflect"
	"testing"
)

func TestGoldenCopy(t *testing.T) {
	for _, c := range []struct {
		name   string
		header StreamHeader
	}{
		{"stream_copy_read", StreamHeader{Kind: StreamCopy, Copy: &Copy{Path: "/etc/.", Direction: Read}}},
		{"stream_copy_write", StreamHeader{Kind: StreamCopy, Copy: &Copy{Path: "/tmp/", Direction: Write, Owners: true, Extract: true}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b bytes.Buffer
			if err := WriteMessage(&b, Message{Type: TypeStream}, c.header); err != nil {
				t.Fatal(err)
			}
			golden(t, c.name, append(bytes.Clone(b.Bytes()), '\n'))
			m, err := ReadMessage(&b)
			if err != nil {
				t.Fatal(err)
			}
			var back StreamHeader
			if err := m.Decode(&back); err != nil || !reflect.DeepEqual(back, c.header) {
				t.Errorf("read back %+v, %v", back, err)
			}
		})
	}
}
