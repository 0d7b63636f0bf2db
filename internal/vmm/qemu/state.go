package qemu

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"

	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/ram"
)

// A state is what QEMU writes when it migrates, as it is or compressed with zstd,
// whose magic tells which. Its digest is of the file.

const (
	// maxState bounds a state without memory, which is read at once: some hundred
	// kilobytes.
	maxState = 64 << 20
	// lastPart is held back until the rest of a state is known to be good. It is far
	// more than what QEMU could do without: its own description of what it wrote.
	lastPart = 1 << 20
	// copySize is how much is copied at a time.
	copySize = 1 << 20
)

var zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}

// sum is a digest in the making. That of a whole state is summed as memory is, for
// its size.
type sum interface {
	io.Writer // never fails
	Digest() string
}

func newSum(whole bool) sum {
	if whole {
		return &ram.Sum{}
	}
	return sha{sha256.New()}
}

type sha struct{ hash.Hash }

// Digest implements sum.
func (s sha) Digest() string { return "sha256:" + hex.EncodeToString(s.Sum(nil)) }

// sink writes a state to a file and sums it.
type sink struct {
	to   io.Writer
	sums map[bool]sum // by whether it is the sum of a whole state
	n    int64
}

// newSink makes a sink for a state of which it is known whether it will be whole, or for one that can
// be either.
func newSink(to io.Writer, whole ...bool) *sink {
	s := &sink{to: to, sums: map[bool]sum{}}
	for _, w := range whole {
		s.sums[w] = newSum(w)
	}
	return s
}

// Write implements io.Writer.
func (s *sink) Write(p []byte) (int, error) {
	for _, sum := range s.sums {
		_, _ = sum.Write(p) // never fails
	}
	n, err := s.to.Write(p)
	s.n += int64(n)
	return n, err
}

// copyState copies a state up to the end of QEMU's writing.
func copyState(to io.Writer, from io.Reader, compress bool) error {
	if !compress {
		_, err := io.CopyBuffer(onlyWriter{to}, onlyReader{from}, make([]byte, copySize))
		return err
	}
	z, err := zstd.NewWriter(to, zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(onlyWriter{z}, onlyReader{from}, make([]byte, copySize))
	if closed := z.Close(); err == nil { // it repeats an error of writing
		err = closed
	}
	return err
}

// onlyReader and onlyWriter hide all but one method: io.Copy is to use its buffer.
type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)

// opened is a state that is about to be loaded.
type opened struct {
	io.ReadCloser
	// left says that QEMU was told to leave the memory out, and has to be told again.
	left bool
}

// ignoreShared is the capability with which QEMU leaves shared memory out. A state begins with the names
// of those that both ends must have.
const (
	ignoreShared = "x-ignore-shared"
	headSize     = 256 // before anything that a guest could write
)

// openState opens a state and looks whether it can be what was saved. One without
// memory is read and checked at once.
func openState(want *vmm.File, whole bool) (*opened, error) {
	f, err := os.Open(want.Path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", vmm.ErrDamaged, err)
	} else if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && size.Bytes(fi.Size()) != want.Size {
		err = fmt.Errorf("%w: %s has %d bytes, not %d", vmm.ErrDamaged, want.Path, fi.Size(), want.Size)
	}
	if err != nil {
		_ = f.Close() // only read
		return nil, err
	}
	if whole {
		return &opened{ReadCloser: f}, nil
	}
	defer f.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(io.LimitReader(f, maxState))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", vmm.ErrDamaged, err)
	}
	sum := newSum(whole)
	_, _ = sum.Write(b) // never fails
	if sum.Digest() != want.Digest {
		return nil, errChanged(want.Path)
	}
	head := b[:min(len(b), headSize)]
	return &opened{ReadCloser: io.NopCloser(bytes.NewReader(b)), left: bytes.Contains(head, []byte(ignoreShared))}, nil
}

func errChanged(path string) error { return fmt.Errorf("%w: %s is changed", vmm.ErrDamaged, path) }

// content is a state's file and what is in it.
type content struct {
	*vmm.File
	whole bool // it has the memory
	bare  bool // which is loaded over nothing but zeros
}

// feed writes a state to QEMU, unpacked. QEMU never gets the end of a state that is
// not what was saved; one that it refuses before is looked at none the less.
func feed(ctx context.Context, to io.Writer, file io.Reader, want content) error {
	sum := newSum(want.whole)
	from := bufio.NewReaderSize(io.TeeReader(io.LimitReader(file, int64(want.Size)), sum), copySize)
	var state io.Reader = from
	if b, _ := from.Peek(len(zstdMagic)); bytes.Equal(b, zstdMagic) { // what cannot be read is told below
		z, err := zstd.NewReader(from)
		if err != nil {
			return err
		}
		defer z.Close()
		state = z
	}
	if want.whole && want.bare {
		state = newDense(state)
	}
	h := holder{to: to}
	_, err := io.CopyBuffer(&h, onlyReader{state}, make([]byte, copySize))
	if h.err != nil && ctx.Err() == nil {
		_, err = io.Copy(io.Discard, from)
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("%w: %s: %w", vmm.ErrDamaged, want.Path, err)
	case sum.Digest() != want.Digest:
		return errChanged(want.Path)
	case h.err != nil:
		return h.err
	}
	return h.release()
}

// holder passes on what is written to it, but for the last part.
type holder struct {
	to   io.Writer
	held []byte
	err  error // of to
}

// Write implements io.Writer.
func (h *holder) Write(p []byte) (int, error) {
	h.held = append(h.held, p...)
	if n := len(h.held) - lastPart; n > 0 {
		if _, h.err = h.to.Write(h.held[:n]); h.err != nil {
			return 0, h.err
		}
		h.held = append(h.held[:0], h.held[n:]...)
	}
	return len(p), nil
}

// release passes on the rest.
func (h *holder) release() error {
	_, h.err = h.to.Write(h.held)
	return h.err
}
