package kernel

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// elfFile makes an ELF file with one section of that name and content, and the
// PVH note where a kernel has it.
func elfFile(section string, content []byte, pvh bool) []byte {
	le := binary.LittleEndian
	const ehsize, phsize, shsize = 64, 56, 64
	note := []byte("\x04\x00\x00\x00\x04\x00\x00\x00\x12\x00\x00\x00Xen\x00\x00\x00\x10\x00")
	names := []byte("\x00" + section + "\x00.shstrtab\x00")
	noteAt := ehsize + phsize
	contentAt := noteAt + len(note)
	namesAt := contentAt + len(content)
	table := (namesAt + len(names) + 7) &^ 7
	out := make([]byte, table+3*shsize)
	copy(out, "\x7fELF\x02\x01\x01")
	le.PutUint16(out[16:], 1)
	le.PutUint16(out[18:], 62)
	le.PutUint32(out[20:], 1)
	le.PutUint64(out[32:], ehsize)
	le.PutUint64(out[40:], uint64(table))
	le.PutUint16(out[52:], ehsize)
	le.PutUint16(out[54:], phsize)
	le.PutUint16(out[56:], 1)
	le.PutUint16(out[58:], shsize)
	le.PutUint16(out[60:], 3)
	le.PutUint16(out[62:], 2)
	if pvh {
		le.PutUint32(out[ehsize:], 4) // PT_NOTE
	}
	le.PutUint64(out[ehsize+8:], uint64(noteAt))
	le.PutUint64(out[ehsize+32:], uint64(len(note)))
	copy(out[noteAt:], note)
	copy(out[contentAt:], content)
	copy(out[namesAt:], names)
	for i, s := range []struct{ name, kind, at, size int }{{1, 1, contentAt, len(content)}, {len(section) + 2, 3, namesAt, len(names)}} {
		h := out[table+(i+1)*shsize:]
		le.PutUint32(h, uint32(s.name))
		le.PutUint32(h[4:], uint32(s.kind))
		le.PutUint64(h[24:], uint64(s.at))
		le.PutUint64(h[32:], uint64(s.size))
	}
	return out
}

func compressed(t *testing.T, image []byte, open func(io.Writer) io.WriteCloser) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := open(&buf)
	_, err := w.Write(image)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestExtract(t *testing.T) {
	body := make([]byte, 100_000)
	for i := range body {
		body[i] = byte(rand.IntN(4))
	}
	image := elfFile(".text", body, true)
	big := elfFile(".text", bytes.Repeat(body, 90), true) // more than one block of lz4 -l
	// Made by: xz --check=crc32 --x86 --lzma2=dict=1MiB, as the kernel's build does.
	xzImage, err := os.ReadFile("testdata/image.xz")
	if err != nil {
		t.Fatal(err)
	}
	xzWant, err := os.ReadFile("testdata/image.elf")
	if err != nil {
		t.Fatal(err)
	}
	openGz := func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }
	openZs := func(w io.Writer) io.WriteCloser {
		z, err := zstd.NewWriter(w)
		if err != nil {
			t.Fatal(err)
		}
		return z
	}
	openLZ := func(w io.Writer) io.WriteCloser {
		z := lz4.NewWriter(w)
		if err := z.Apply(lz4.LegacyOption(true)); err != nil {
			t.Fatal(err)
		}
		return z
	}
	for name, c := range map[string]struct{ packed, want []byte }{
		"plain":   {image, image},
		"gzip":    {compressed(t, image, openGz), image},
		"zstd":    {compressed(t, image, openZs), image},
		"lz4":     {compressed(t, image, openLZ), image},
		"lz4 big": {compressed(t, big, openLZ), big},
		"xz":      {xzImage, xzWant},
	} {
		packed := c.packed
		if name != "plain" {
			// The boot program before it has stray magic numbers; behind it stands
			// the size of the image.
			packed = bytes.Join([][]byte{
				[]byte("MZ boot program \x1f\x8b\x08 \xfd7zXZ\x00 \x28\xb5\x2f\xfd \x02\x21\x4c\x18 and more"), c.packed,
				binary.LittleEndian.AppendUint32(nil, uint32(len(c.want))), make([]byte, 100),
			}, nil)
		}
		got, err := extract(packed, "amd64")
		if err != nil || !bytes.Equal(got, c.want) {
			t.Errorf("%s: %d bytes, %v, want %d", name, len(got), err, len(c.want))
		}
	}
	cut := compressed(t, image[:len(image)-10], openGz)
	for name, data := range map[string][]byte{"empty": nil, "text": []byte("no kernel"), "cut short": cut} {
		if got, err := extract(data, "amd64"); !errors.Is(err, errNoImage) {
			t.Errorf("%s: %d bytes, %v, want no image", name, len(got), err)
		}
	}
}

func TestExtractARM64(t *testing.T) {
	image := make([]byte, 4096)
	copy(image[56:], "ARM\x64")
	for name, data := range map[string][]byte{
		"plain": image, "gzip": compressed(t, image, func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }),
	} {
		if got, err := extract(data, "arm64"); err != nil || !bytes.Equal(got, image) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}

func TestCheckPVH(t *testing.T) {
	if err := checkPVH(elfFile(".text", nil, true)); err != nil {
		t.Errorf("with the note: %v", err)
	}
	if checkPVH(elfFile(".text", nil, false)) == nil {
		t.Error("a kernel without the note is taken")
	}
	if checkPVH([]byte("no ELF")) == nil {
		t.Error("something else is taken for a kernel")
	}
}
