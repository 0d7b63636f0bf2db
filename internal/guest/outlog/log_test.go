package outlog

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/xfeldman/aegisvm/internal/frame"
)

// memFile is a File that can be full.
type memFile struct {
	b      []byte
	full   atomic.Bool
	closed atomic.Bool
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) { return copy(p, f.b[off:]), nil }

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	if f.full.Load() {
		return 0, errors.New("no space left on device")
	}
	return copy(f.b[off:], p), nil
}

func (f *memFile) Close() error { f.closed.Store(true); return nil }

// pull reads and acknowledges the log as a host does, and returns its payload.
func pull(t *testing.T, l *Log) (out []byte, status int32) {
	t.Helper()
	var enc []byte
	buf := make([]byte, 10_000)
	for off := uint64(0); ; {
		n, err := l.Read(t.Context(), off, buf)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		enc = append(enc, buf[:n]...)
		off += uint64(n)
		done := l.Ack(off)
		if _, end := l.Bounds(); done && off != end {
			t.Fatalf("all acknowledged at %d of %d", off, end)
		}
	}
	for r := frame.NewReader(bytes.NewReader(enc)); ; {
		f, err := r.Next()
		if err != nil {
			return out, status
		}
		if f.Type == frame.Exit {
			status, _ = f.Status()
		} else {
			out = append(out, f.Payload...)
		}
	}
}

func TestNothingIsLost(t *testing.T) {
	for _, conf := range []Config{
		{Memory: MinMemory},
		{Memory: MinMemory, Ring: 100_001, Open: func() (File, error) { return &memFile{b: make([]byte, 100_001)}, nil }},
		{Memory: MinMemory, Ring: 100_001, Open: func() (File, error) { return nil, os.ErrPermission }},
		{Memory: MinMemory, Ring: 100_001},
	} {
		synctest.Test(t, func(t *testing.T) {
			in := make([]byte, 3<<20)
			for i := range in {
				in[i] = byte(rand.Uint32())
			}
			l := New(conf)
			go func() {
				for rest := in; len(rest) > 0; {
					n := min(len(rest), 1+rand.IntN(100_000))
					if err := l.Append(frame.Stdout, rest[:n]); err != nil {
						t.Error(err)
					}
					rest = rest[n:]
				}
				l.Exit(7)
			}()
			out, status := pull(t, l)
			if !bytes.Equal(in, out) || status != 7 {
				t.Errorf("%d bytes and status %d came out, %d and 7 went in", len(out), status, len(in))
			}
			l.Close()
		})
	}
}

func TestFullLogBlocksTheWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &memFile{b: make([]byte, 64<<10)}
		l := New(Config{Memory: MinMemory, Ring: 64 << 10, Open: func() (File, error) { return f, nil }})
		var wrote atomic.Int64
		done := make(chan error)
		go func() {
			for {
				if err := l.Append(frame.Stdout, make([]byte, 1000)); err != nil {
					done <- err
					return
				}
				wrote.Add(1005)
			}
		}()
		synctest.Wait()
		if n := wrote.Load(); n < 126<<10 || n > 128<<10 {
			t.Errorf("%d bytes fit into a log of 128 KB", n)
		}
		before := wrote.Load()
		l.Ack(64 * 1005) // memory drains, the file goes on
		synctest.Wait()
		if wrote.Load() != before {
			t.Error("bytes went to memory while older ones are in the file")
		}
		l.Ack(uint64(before))
		synctest.Wait()
		if n := wrote.Load() - before; n < 126<<10 {
			t.Errorf("only %d bytes fit after all was acknowledged", n)
		}
		l.Close()
		if err := <-done; !errors.Is(err, ErrClosed) || !f.closed.Load() {
			t.Errorf("after Close: %v, file closed %v", err, f.closed.Load())
		}
	})
}

func TestDiskFullMidway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &memFile{b: make([]byte, 1<<20)}
		l := New(Config{Memory: MinMemory, Ring: 1 << 20, Open: func() (File, error) { return f, nil }})
		in := make([]byte, 300_000)
		for i := range in {
			in[i] = byte(i >> 8)
		}
		_ = l.Append(frame.Stdout, in[:200_000])
		f.full.Store(true)
		go func() { _ = l.Append(frame.Stdout, in[200_000:]); l.Exit(0) }()
		synctest.Wait()
		if out, _ := pull(t, l); !bytes.Equal(in, out) {
			t.Errorf("%d bytes came out of %d", len(out), len(in))
		}
	})
}

func TestReadBounds(t *testing.T) {
	l := New(Config{})
	_ = l.Append(frame.Stdout, []byte("hello"))
	l.Ack(10)
	for _, off := range []uint64{0, 9, 11, 1 << 63} {
		if _, err := l.Read(t.Context(), off, make([]byte, 1)); err == nil {
			t.Errorf("Read at %d of a log with 10 to 10", off)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(io.ErrNoProgress)
	if _, err := l.Read(ctx, 10, make([]byte, 1)); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("Read under an ended context = %v", err)
	}
}
