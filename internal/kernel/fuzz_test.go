package kernel

import (
	"bytes"
	"compress/gzip"
	"testing"
)

// FuzzExtract looks for a kernel in files that have none, or a broken one: what is said to
// be one is whole.
func FuzzExtract(f *testing.F) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write([]byte("\x7fELF\x02" + string(make([]byte, 60)))) // into memory
	_ = z.Close()
	for _, seed := range []string{
		"", "\x7fELF\x02" + string(make([]byte, 80)), "MZ" + packed.String(), "\x02\x21\x4c\x18\xff\xff\x00\x00x", "\x28\xb5\x2f\xfd\x04\x00\x41\x00\x00x",
		"\xfd7zXZ\x00\x00\x04", string(make([]byte, 56)) + "ARM\x64" + string(make([]byte, 8)),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for arch, whole := range map[string]func([]byte) bool{"amd64": wholeELF, "arm64": wholeARM64} {
			if image, err := extract(data, arch); err == nil && !whole(image) {
				t.Fatalf("%s: %d bytes are taken for a kernel", arch, len(image))
			}
		}
	})
}
