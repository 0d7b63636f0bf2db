package outlog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/xfeldman/aegisvm/internal/frame"
)

// Sizes of a log's memory.
const (
	DefaultMemory = 256 << 10
	MinMemory     = 64 << 10
	MaxMemory     = 16 << 20

	// MaxChunk bounds the payload of a frame, so that one fits into the smallest log.
	MaxChunk = 32 << 10
)

// ErrClosed is what a log says after Close.
var ErrClosed = errors.New("output log closed")

// File is what a ring is kept in.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
}

// Config says how much of its output a log keeps.
type Config struct {
	Memory int                  // bytes; 0 is DefaultMemory
	Ring   int64                // bytes of the file; 0 is none
	Open   func() (File, error) // makes the file when it is first needed
}

// Log is the output of one process. Its methods may be called together.
//
// The unacknowledged bytes [base, end) lie in memory up to split, and behind that
// in the file; while the file holds anything, new bytes go there. The Exit frame
// lies by itself, at end.
type Log struct {
	conf  Config
	token chan struct{} // held by the one goroutine that appends; keeps records whole

	mu      sync.Mutex
	mem     []byte // a ring: offset o is at o % len(mem)
	file    File   // a ring as well
	fileErr error  // the file can take no more: what it has drains, then memory is used
	base    uint64
	split   uint64
	end     uint64
	exit    []byte
	closed  bool
	changed chan struct{} // closed and replaced whenever one of the above changes
}

// New returns an empty log.
func New(conf Config) *Log {
	if conf.Memory == 0 {
		conf.Memory = DefaultMemory
	}
	conf.Memory = min(max(conf.Memory, MinMemory), MaxMemory)
	l := &Log{conf: conf, token: make(chan struct{}, 1), changed: make(chan struct{})}
	l.token <- struct{}{}
	return l
}

// Append adds output, waiting for room. After Close it returns ErrClosed.
func (l *Log) Append(t frame.Type, payload []byte) error {
	<-l.token
	defer func() { l.token <- struct{}{} }()
	for len(payload) > 0 {
		n := min(len(payload), MaxChunk)
		if err := l.add(t, payload[:n]); err != nil {
			return err
		}
		payload = payload[n:]
	}
	return nil
}

// Exit adds the last frame. There is always room for it. Only the first call
// counts.
func (l *Log) Exit(status int32) {
	<-l.token
	defer func() { l.token <- struct{}{} }()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.exit == nil {
		l.exit = frame.Append(nil, frame.Exit, frame.EncodeStatus(status))
		l.wake()
	}
}

// add stores one record. The caller holds the token.
func (l *Log) add(t frame.Type, payload []byte) error {
	size := frame.HeaderSize + len(payload)
	for {
		l.mu.Lock()
		changed := l.changed
		switch {
		case l.closed:
			l.mu.Unlock()
			return ErrClosed
		case l.split == l.end && int(l.end-l.base)+size <= l.conf.Memory: //nolint:gosec // at most MaxMemory
			l.remember(t, payload)
			l.mu.Unlock()
			return nil
		case l.fileErr == nil && int64(l.end-max(l.base, l.split))+int64(size) <= l.conf.Ring: //nolint:gosec // at most Ring
			file, at := l.file, l.end
			l.mu.Unlock()
			if l.spill(file, at, frame.Append(make([]byte, 0, size), t, payload)) {
				return nil
			}
		default:
			l.mu.Unlock()
			<-changed
		}
	}
}

// remember stores a record in memory. The caller holds mu and has seen that it
// fits.
func (l *Log) remember(t frame.Type, payload []byte) {
	if l.mem == nil {
		l.mem = make([]byte, l.conf.Memory)
	}
	l.put(frame.AppendHeader(make([]byte, 0, frame.HeaderSize), t, len(payload)))
	l.put(payload)
	l.split = l.end
	l.wake()
}

func (l *Log) put(b []byte) {
	i := int(l.end % uint64(len(l.mem))) //nolint:gosec // below MaxMemory
	n := copy(l.mem[i:], b)
	copy(l.mem, b[n:])
	l.end += uint64(len(b))
}

// spill stores b in the file and reports whether that worked.
func (l *Log) spill(file File, at uint64, b []byte) bool {
	file, err := l.opened(file)
	if err == nil {
		i := int64(at % uint64(l.conf.Ring)) //nolint:gosec // Ring is positive here
		n := min(int64(len(b)), l.conf.Ring-i)
		if _, err = file.WriteAt(b[:n], i); err == nil && n < int64(len(b)) {
			_, err = file.WriteAt(b[n:], 0)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.fileErr = fmt.Errorf("write the ring of an output log: %w", err)
	} else {
		l.end += uint64(len(b))
	}
	l.wake()
	return err == nil
}

func (l *Log) opened(file File) (File, error) {
	if file != nil {
		return file, nil
	}
	if l.conf.Open == nil {
		return nil, errors.ErrUnsupported
	}
	file, err := l.conf.Open()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		_ = file.Close() // nothing was written
		return nil, ErrClosed
	}
	l.file = file
	return file, nil
}

// wake tells all who wait. The caller holds mu.
func (l *Log) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// Read copies bytes of the log from off on into p, waiting until there are some.
// It returns io.EOF behind the Exit frame, and ctx's cause when ctx ends first. An
// off that is not between what is acknowledged and the end is an error.
func (l *Log) Read(ctx context.Context, off uint64, p []byte) (int, error) {
	for {
		l.mu.Lock()
		changed := l.changed
		switch {
		case l.closed:
			l.mu.Unlock()
			return 0, ErrClosed
		case off < l.base || off > l.end+uint64(len(l.exit)):
			defer l.mu.Unlock()
			return 0, fmt.Errorf("offset %d of an output log that has %d to %d", off, l.base, l.end)
		case off < l.split:
			i := int(off % uint64(len(l.mem))) //nolint:gosec // below MaxMemory
			n := copy(p[:min(uint64(len(p)), l.split-off)], l.mem[i:])
			l.mu.Unlock()
			return n, nil
		case off < l.end:
			file, end := l.file, l.end
			l.mu.Unlock()
			i := int64(off % uint64(l.conf.Ring))                                            //nolint:gosec // Ring is positive
			n := min(int64(len(p)), int64(min(end-off, uint64(l.conf.Ring))), l.conf.Ring-i) //nolint:gosec // as above
			return file.ReadAt(p[:n], i)
		case l.exit != nil:
			n := copy(p, l.exit[off-l.end:])
			l.mu.Unlock()
			if n == 0 && len(p) > 0 {
				return 0, io.EOF
			}
			return n, nil
		}
		l.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// Ack drops the bytes before off. It reports whether all of the log, Exit frame
// included, has been acknowledged.
func (l *Log) Ack(off uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.exit != nil && off >= l.end+uint64(len(l.exit))
	if off = min(off, l.end); off > l.base {
		l.base = off
		if l.base == l.end {
			l.split = l.end
		}
		l.wake()
	}
	return all
}

// Bounds returns the first offset that is still there, and the end so far.
func (l *Log) Bounds() (base, end uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.base, l.end + uint64(len(l.exit))
}

// Close forgets everything and frees who waits.
func (l *Log) Close() {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return
	}
	l.closed = true
	file := l.file
	l.mem = nil
	l.wake()
	l.mu.Unlock()
	if file != nil {
		_ = file.Close() // it has no name; nothing else needs it
	}
}
