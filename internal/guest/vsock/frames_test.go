package vsock

import (
	"bufio"
	"bytes"
	"testing"
)

func FuzzFrames(f *testing.F) {
	f.Add(append([]byte{0, 0, 0, 14}, make([]byte, 14)...))
	f.Add(append([]byte{0, 0, 0, 13}, make([]byte, 13)...))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0, 0, 0xff, 0xfe, 1})
	f.Add([]byte{0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bufio.NewReader(bytes.NewReader(b))
		buf := make([]byte, maxFrame)
		var again []byte
		for {
			frame, err := readFrame(r, buf)
			if err != nil {
				break
			}
			if len(frame) < minFrame || len(frame) > maxFrame {
				t.Fatalf("a frame of %d bytes", len(frame))
			}
			var header [headerSize]byte
			putHeader(header[:], len(frame))
			again = append(append(again, header[:]...), frame...)
		}
		if !bytes.HasPrefix(b, again) {
			t.Errorf("%x became %x", b, again)
		}
	})
}
