package image

import (
	"bytes"
	"io"
	"testing"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// FuzzDecompress: what cannot be decompressed is the archive's fault, and what can is no
// more than its bytes can hold.
func FuzzDecompress(f *testing.F) {
	for _, seed := range []string{
		"", "plain", "\x1f\x8b\x08\x00", "\x28\xb5\x2f\xfd\x04\x00\x41\x00\x00x", "BZh91AY&SY", "\xfd7zXZ\x00\x00\x04\xe6\xd6\xb4F",
		gzipOf(f, []byte("some text, some text, some text")), gzipOf(f, bytes.Repeat([]byte{0}, 1<<16)),
	} {
		f.Add([]byte(seed))
	}
	const most = 4 << 20
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decompress(bytes.NewReader(data))
		if err != nil {
			if fault.KindOf(err) != fault.Invalid {
				t.Fatalf("%v: nobody foresaw it", err)
			}
			return
		}
		ahead := readAhead(r, most)
		n, _ := io.Copy(io.Discard, ahead) // of a damaged one there is a part
		ahead.close()
		if n > most+aheadChunk*aheadChunks {
			t.Fatalf("%d bytes became %d", len(data), n)
		}
		_ = r.Close() // nothing was written
	})
}
