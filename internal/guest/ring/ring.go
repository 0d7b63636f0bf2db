// Package ring is a bounded queue of bytes between two goroutines.
//
// A Buffer is a ring of fixed capacity: Write blocks while it is full, Read while
// it is empty. It is what stands between the one reader of the pipe and the session
// that the bytes belong to, and what the pipes of tests are made of.
package ring

import (
	"io"
	"os"
	"sync"
	"time"
)

// Buffer is a bounded queue of bytes. All methods may be called together.
type Buffer struct {
	mu     sync.Mutex
	change sync.Cond // anything below changed
	buf    []byte
	start  int
	n      int
	err    error // after it nothing can be written; readers get it when the buffer is empty

	readBy, writeBy deadline
}

// New returns a Buffer of the given capacity.
func New(capacity int) *Buffer {
	b := &Buffer{buf: make([]byte, capacity)}
	b.change.L = &b.mu
	return b
}

// Read returns what is there, or waits. It returns the error of Close once the
// buffer is empty, and os.ErrDeadlineExceeded after the read deadline.
func (b *Buffer) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.n == 0 && b.err == nil && len(p) > 0 {
		if b.readBy.passed {
			return 0, os.ErrDeadlineExceeded
		}
		b.change.Wait()
	}
	if b.n == 0 {
		return 0, b.err
	}
	return b.take(p), nil
}

// Take returns all that is there, and does not wait.
func (b *Buffer) Take() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := make([]byte, b.n)
	b.take(p)
	return p
}

// take moves bytes to p. The caller holds mu.
func (b *Buffer) take(p []byte) int {
	total := 0
	for b.n > 0 && total < len(p) {
		c := copy(p[total:], b.buf[b.start:min(b.start+b.n, len(b.buf))])
		b.start = (b.start + c) % len(b.buf)
		b.n -= c
		total += c
	}
	b.change.Broadcast()
	return total
}

// Write appends all of p, waiting for room. After an error it returns how much of
// p was taken.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	total := 0
	for {
		switch {
		case b.err != nil:
			return total, io.ErrClosedPipe
		case total == len(p):
			return total, nil
		case b.n < len(b.buf):
			end := (b.start + b.n) % len(b.buf)
			limit := len(b.buf)
			if end < b.start {
				limit = b.start
			}
			c := copy(b.buf[end:limit], p[total:])
			b.n += c
			total += c
			b.change.Broadcast()
		case b.writeBy.passed:
			return total, os.ErrDeadlineExceeded
		default:
			b.change.Wait()
		}
	}
}

// Close ends the buffer: writes fail, reads return err (io.EOF if nil) once it is
// empty. Only the first call counts.
func (b *Buffer) Close(err error) {
	if err == nil {
		err = io.EOF
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.err = err
	}
	b.readBy.stop()
	b.writeBy.stop()
	b.change.Broadcast()
}

// Len returns the number of bytes in the buffer.
func (b *Buffer) Len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.n
}

// SetReadDeadline sets when Read stops waiting; the zero time is never.
func (b *Buffer) SetReadDeadline(t time.Time) { b.set(&b.readBy, t) }

// SetWriteDeadline sets when Write stops waiting; the zero time is never.
func (b *Buffer) SetWriteDeadline(t time.Time) { b.set(&b.writeBy, t) }

// deadline is guarded by Buffer.mu.
type deadline struct {
	timer  *time.Timer
	passed bool
}

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}

func (b *Buffer) set(d *deadline, t time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	d.stop()
	wait := time.Until(t)
	d.passed = !t.IsZero() && wait <= 0
	if !t.IsZero() && wait > 0 && b.err == nil {
		var timer *time.Timer
		timer = time.AfterFunc(wait, func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			if d.timer == timer { // not replaced meanwhile
				d.passed = true
				b.change.Broadcast()
			}
		})
		d.timer = timer
	}
	b.change.Broadcast()
}
