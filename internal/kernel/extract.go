package kernel

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/therootcompany/xz"
)

// maxImage bounds an uncompressed kernel: the package is verified, a stray magic
// number in it is not.
const maxImage = 256 << 20

// errNoImage means that a file holds no kernel image in a form known here.
var errNoImage = errors.New("no kernel image found in it")

// extract returns the uncompressed kernel image within data, which is what a
// distribution has as vmlinuz: an ELF file for amd64, an Image for arm64. A bzImage
// is a small program with the compressed image at some place behind it; so the
// places are tried where one of the compressions' magic numbers stands.
func extract(data []byte, arch string) ([]byte, error) {
	whole := wholeELF
	if arch == "arm64" {
		whole = wholeARM64
	}
	if whole(data) {
		return data, nil
	}
	for _, c := range []struct {
		magic string
		open  func(r io.Reader) (io.Reader, error)
	}{
		{"\xfd7zXZ\x00", func(r io.Reader) (io.Reader, error) { return xz.NewReader(r, 0) }},
		{"\x28\xb5\x2f\xfd", openZstd},
		{"\x02\x21\x4c\x18", func(r io.Reader) (io.Reader, error) { return newLegacyLZ4(r), nil }},
		{"\x1f\x8b\x08", openGzip},
	} {
		for at := 0; ; at++ {
			i := bytes.Index(data[at:], []byte(c.magic))
			if i < 0 {
				break
			}
			at += i
			if image := decompress(data[at:], c.open); whole(image) {
				return image, nil
			}
		}
	}
	return nil, errNoImage
}

// decompress returns what comes out before the end or an error: behind a kernel
// stands its size, which no decompressor understands.
func decompress(data []byte, open func(io.Reader) (io.Reader, error)) []byte {
	r, err := open(bytes.NewReader(data))
	if err != nil {
		return nil
	}
	if c, ok := r.(*zstd.Decoder); ok {
		defer c.Close()
	}
	image, _ := io.ReadAll(io.LimitReader(r, maxImage)) // the caller tells whether it is whole
	return image
}

func openZstd(r io.Reader) (io.Reader, error) {
	return zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxImage))
}

func openGzip(r io.Reader) (io.Reader, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, err
	}
	z.Multistream(false)
	return z, nil
}

// legacyLZ4 reads the frames that lz4 -l writes for kernels: a magic number, then
// blocks with their compressed size, each of 8 MB but the last. No end is marked.
type legacyLZ4 struct {
	r    io.Reader
	buf  []byte // what remains of the block that is being read
	init bool
}

const lz4Block = 8 << 20

func newLegacyLZ4(r io.Reader) io.Reader { return &legacyLZ4{r: r} }

func (l *legacyLZ4) Read(p []byte) (int, error) {
	for len(l.buf) == 0 {
		if err := l.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, l.buf)
	l.buf = l.buf[n:]
	return n, nil
}

func (l *legacyLZ4) next() error {
	var word [4]byte
	if !l.init {
		if _, err := io.ReadFull(l.r, word[:]); err != nil {
			return err
		}
		l.init = true
	}
	if _, err := io.ReadFull(l.r, word[:]); err != nil {
		return err
	}
	size := binary.LittleEndian.Uint32(word[:])
	if size == 0 || int64(size) > int64(lz4.CompressBlockBound(lz4Block)) {
		return io.EOF // the size of the whole kernel stands here, or something foreign
	}
	in := make([]byte, size)
	if _, err := io.ReadFull(l.r, in); err != nil {
		return err
	}
	out := make([]byte, lz4Block)
	n, err := lz4.UncompressBlock(in, out)
	if err != nil {
		return err
	}
	l.buf = out[:n]
	return nil
}

// wholeELF tells whether image is a 64-bit ELF file that is not cut short. Its
// table of sections stands at its end.
func wholeELF(image []byte) bool {
	if len(image) < 64 || string(image[:5]) != "\x7fELF\x02" {
		return false
	}
	le := binary.LittleEndian
	table, entry, count := le.Uint64(image[40:]), uint64(le.Uint16(image[58:])), uint64(le.Uint16(image[60:]))
	return table < maxImage && table+entry*count <= uint64(len(image))
}

// wholeARM64 tells whether image is an uncompressed arm64 kernel. The size in its
// header counts memory that is not in the file, so it does not help.
func wholeARM64(image []byte) bool {
	return len(image) >= 64 && string(image[56:60]) == "ARM\x64"
}
