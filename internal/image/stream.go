package image

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/therootcompany/xz"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/size"
)

// maxWindow bounds what a zstd stream can make its reader keep. It is what zstd itself
// takes without being told otherwise.
const maxWindow = 128 << 20

// form is how a stream is compressed.
type form uint8

const (
	plain form = iota
	gzipped
	zstandard
	bzipped
	xzipped
)

// headSize is how much of a stream tells its form.
const headSize = 6

// formOf looks at what a stream begins with.
func formOf(head []byte) form {
	for f, magic := range map[form]string{
		gzipped: "\x1f\x8b", zstandard: "\x28\xb5\x2f\xfd", bzipped: "BZh", xzipped: "\xfd7zXZ\x00",
	} {
		if bytes.HasPrefix(head, []byte(magic)) {
			return f
		}
	}
	return plain
}

// decompress returns the content of a stream that is compressed, or is not: what it
// begins with tells, not what somebody has called it.
func decompress(r io.Reader) (io.ReadCloser, error) {
	in := bufio.NewReaderSize(r, 256<<10)
	head, err := in.Peek(headSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch formOf(head) {
	case gzipped:
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, damaged(err)
		}
		return z, nil
	case zstandard:
		z, err := zstd.NewReader(in, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(2), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, damaged(err)
		}
		return z.IOReadCloser(), nil
	case bzipped:
		return io.NopCloser(bzip2.NewReader(in)), nil
	case xzipped:
		z, err := xz.NewReader(in, 0)
		if err != nil {
			return nil, damaged(err)
		}
		return io.NopCloser(z), nil
	case plain:
	}
	return io.NopCloser(in), nil
}

func damaged(err error) error {
	return fault.Wrap(fault.Invalid, err, "bad archive: it cannot be decompressed").By(fault.Image).
		WithHint("it may have been cut off: get it anew")
}

// ahead decompresses in a goroutine of its own, and takes the digest of what was read
// in another: so the two go on while the image is written.
type ahead struct {
	full  chan chunk  // decompressed
	used  chan []byte // read, to be added to the digest
	free  chan []byte
	quit  chan struct{}
	wg    sync.WaitGroup
	cur   []byte // what is left of the chunk that is being read
	whole []byte // that chunk
	err   error
	sum   hash.Hash
}

type chunk struct {
	data []byte
	err  error
}

const (
	aheadChunks = 8
	aheadChunk  = 256 << 10
)

// readAhead begins to read r, of which it takes at most limit bytes. Close ends it.
func readAhead(r io.Reader, limit size.Bytes) *ahead {
	a := &ahead{
		full: make(chan chunk, aheadChunks), used: make(chan []byte, aheadChunks), free: make(chan []byte, aheadChunks),
		quit: make(chan struct{}), sum: sha256.New(),
	}
	for range aheadChunks {
		a.free <- make([]byte, aheadChunk)
	}
	a.wg.Go(func() { a.fill(r, int64(limit)) })
	a.wg.Go(func() {
		for b := range a.used {
			_, _ = a.sum.Write(b)    // never fails
			a.free <- b[:aheadChunk] // it came from there: there is room
		}
	})
	return a
}

func (a *ahead) fill(r io.Reader, left int64) {
	for {
		var buf []byte
		select {
		case buf = <-a.free:
		case <-a.quit:
			return
		}
		n, err := 0, error(nil)
		for n < len(buf) && err == nil {
			var more int
			more, err = r.Read(buf[n:])
			n += more
		}
		if err != nil && !errors.Is(err, io.EOF) && fault.KindOf(err) == fault.Internal {
			err = damaged(err)
		}
		if left -= int64(n); left < 0 {
			err = fault.New(fault.Invalid, "bad archive: it becomes too large").By(fault.Image)
		}
		select {
		case a.full <- chunk{buf[:n], err}:
		case <-a.quit:
			return
		}
		if err != nil {
			return
		}
	}
}

// Read implements io.Reader.
func (a *ahead) Read(p []byte) (int, error) {
	for len(a.cur) == 0 {
		if a.whole != nil {
			a.used <- a.whole
			a.whole = nil
		}
		if a.err != nil {
			return 0, a.err
		}
		c := <-a.full
		a.cur, a.whole, a.err = c.data, c.data, c.err
	}
	n := copy(p, a.cur)
	a.cur = a.cur[n:]
	return n, nil
}

// close ends the reading. What r reads from must be freed by others. It returns the
// digest of a stream that was read to its end.
func (a *ahead) close() (digest string) {
	close(a.quit)
	close(a.used)
	a.wg.Wait()
	return "sha256:" + hex.EncodeToString(a.sum.Sum(nil))
}

// drain reads the rest of a stream. Tar readers stop at the end mark; digests go on.
func drain(r io.Reader) error {
	if _, err := io.Copy(io.Discard, r); err != nil {
		return fmt.Errorf("read archive: %w", err)
	}
	return nil
}
