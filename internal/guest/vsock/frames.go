package vsock

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
)

// maxFrame is the largest frame of a card: its MTU, and the Ethernet header.
const maxFrame = 65520 + 14

// minFrame is an Ethernet header.
const minFrame = 14

// headerSize is the length before each frame: u32, big-endian.
const headerSize = 4

// readFrame reads one frame into buf, which holds maxFrame bytes.
func readFrame(r *bufio.Reader, buf []byte) ([]byte, error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(header[:])
	if n < minFrame || n > maxFrame {
		return nil, fmt.Errorf("a frame of %d bytes", n)
	}
	_, err := io.ReadFull(r, buf[:n])
	return buf[:n], err
}

// putHeader writes the length of a frame before it.
func putHeader(b []byte, frame int) { binary.BigEndian.PutUint32(b, uint32(frame)) } //nolint:gosec // at most maxFrame
