package ram

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

const (
	magic      = "aegisram"
	entrySize  = 16
	footerSize = len(magic) + 16

	// block is the most that one entry covers: what a worker reads, sums and writes at
	// a time, within a CPU's cache.
	block = 1 << 20
	// page is the least that is left out for being zero.
	page = 4 << 10
	// maxMemory bounds what a table may claim, and with it the table.
	maxMemory = 1 << 40
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// extent is a run of data.
type extent struct {
	offset int64
	length int
	sum    uint32
}

// table is what an image says of itself.
type table struct {
	size    int64 // of the memory
	extents []extent
}

// encode returns the end of an image.
func (t *table) encode() []byte {
	b := make([]byte, 0, len(t.extents)*entrySize+footerSize)
	for _, e := range t.extents {
		b = append64(b, e.offset)
		b = append32(b, e.length)
		b = binary.LittleEndian.AppendUint32(b, e.sum)
	}
	b = append(b, magic...)
	b = append64(b, t.size)
	b = append32(b, len(t.extents))
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func append64(b []byte, v int64) []byte {
	return binary.LittleEndian.AppendUint64(b, uint64(v)) //nolint:gosec // a size
}

func append32(b []byte, v int) []byte {
	return binary.LittleEndian.AppendUint32(b, uint32(v)) //nolint:gosec // a size within a block, or a count of blocks
}

func digest(encoded []byte) string {
	sum := sha256.Sum256(encoded)
	return "sha256:" + hex.EncodeToString(sum[:])
}

var errNoImage = errors.New("not an image of memory")

// readTable reads the table of an image of so many bytes, and returns its digest.
func readTable(r io.ReaderAt, length int64) (*table, string, error) {
	footer := make([]byte, footerSize)
	if length < int64(footerSize) {
		return nil, "", errNoImage
	}
	if _, err := r.ReadAt(footer, length-int64(footerSize)); err != nil {
		return nil, "", err
	}
	if !bytes.HasPrefix(footer, []byte(magic)) {
		return nil, "", errNoImage
	}
	size := binary.LittleEndian.Uint64(footer[len(magic):])
	count := int64(binary.LittleEndian.Uint32(footer[len(magic)+8:]))
	if size > maxMemory || count > int64(size/page) || int64(size)+count*entrySize+int64(footerSize) != length {
		return nil, "", fmt.Errorf("%w: %d bytes of memory in %d extents do not make a file of %d", errNoImage, size, count, length)
	}
	encoded := make([]byte, count*entrySize+int64(footerSize))
	if _, err := r.ReadAt(encoded, int64(size)); err != nil {
		return nil, "", err
	}
	last := len(encoded) - 4
	if crc32.Checksum(encoded[:last], castagnoli) != binary.LittleEndian.Uint32(encoded[last:]) {
		return nil, "", fmt.Errorf("%w: its table is changed", errNoImage)
	}
	t := &table{size: int64(size), extents: make([]extent, count)}
	return t, digest(encoded), t.decode(encoded)
}

// decode reads the entries.
func (t *table) decode(b []byte) error {
	end := int64(0)
	for i := range t.extents {
		offset := int64(binary.LittleEndian.Uint64(b[i*entrySize:])) //nolint:gosec // a negative one is refused
		length := int64(binary.LittleEndian.Uint32(b[i*entrySize+8:]))
		if offset < end || length == 0 || length > block || offset > t.size-length {
			return fmt.Errorf("%w: %d bytes at %d after %d", errNoImage, length, offset, end)
		}
		t.extents[i] = extent{offset, int(length), binary.LittleEndian.Uint32(b[i*entrySize+12:])}
		end = offset + length
	}
	return nil
}

// bytes returns how much data there is.
func (t *table) bytes() int64 {
	n := int64(0)
	for _, e := range t.extents {
		n += int64(e.length)
	}
	return n
}
