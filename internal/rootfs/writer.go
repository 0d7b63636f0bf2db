package rootfs

import (
	"bytes"
	"errors"
	"io"
	"os"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/size"
)

// blockWriter writes a file from its beginning. Blocks of zeros become holes.
type blockWriter struct {
	f       *os.File
	buf     []byte
	used    int
	pos     int64 // of buf in the file
	written int64 // bytes that are no holes
	limit   int64 // on those
	err     error // the first; nothing is written after it
}

// bufferSize is how much is written at a time.
const bufferSize = 1 << 20

func newBlockWriter(f *os.File, limit int64) *blockWriter {
	return &blockWriter{f: f, buf: make([]byte, bufferSize), limit: limit}
}

// Write implements io.Writer.
func (w *blockWriter) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 && w.err == nil {
		n := copy(w.buf[w.used:], p)
		p = p[n:]
		w.advance(n)
	}
	return total - len(p), w.err
}

// ReadFrom implements io.ReaderFrom.
func (w *blockWriter) ReadFrom(r io.Reader) (total int64, err error) {
	for w.err == nil {
		n, err := r.Read(w.buf[w.used:])
		total += int64(n)
		w.advance(n)
		if errors.Is(err, io.EOF) {
			return total, w.err
		}
		if err != nil {
			return total, err
		}
	}
	return total, w.err
}

func (w *blockWriter) advance(n int) {
	if w.used += n; w.used == len(w.buf) {
		w.flush()
	}
}

var zeroBlock [blockSize]byte

// flush writes what is in the buffer, run by run of blocks that are not zero.
func (w *blockWriter) flush() {
	for start := 0; start < w.used && w.err == nil; {
		end := start
		for end < w.used && !w.zero(end) {
			end = min(end+blockSize, w.used)
		}
		if end > start {
			w.put(w.buf[start:end], w.pos+int64(start))
		}
		for start = end; start < w.used && w.zero(start); {
			start = min(start+blockSize, w.used)
		}
	}
	w.pos += int64(w.used)
	w.used = 0
}

// zero reports whether the block at i of the buffer is one of zeros.
func (w *blockWriter) zero(i int) bool {
	block := w.buf[i:min(i+blockSize, w.used)]
	return bytes.Equal(block, zeroBlock[:len(block)])
}

func (w *blockWriter) put(p []byte, at int64) {
	if w.written += int64(len(p)); w.written > w.limit {
		w.err = fault.New(fault.Exhausted, "the image takes more than the %v that there is room for", size.Bytes(w.limit)).
			WithHint("see what images take: aegis image list; remove what nobody needs: aegis image prune")
		return
	}
	_, w.err = w.f.WriteAt(p, at)
}

// finish writes what is left. The file has its whole length then.
func (w *blockWriter) finish() error {
	w.flush()
	if w.err != nil {
		return w.err
	}
	return w.f.Truncate(w.pos)
}
