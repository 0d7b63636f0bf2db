package tail

import (
	"io"
	"os"
	"sync"
)

const (
	// MaxFile bounds a log file: a guest can write to its console for ever.
	MaxFile = 256 << 10
	// maxTail bounds what is kept in memory to explain an end.
	maxTail = 16 << 10
	// MaxWords bounds what the daemon logs of the console of a guest.
	MaxWords = 4 << 10
)

// Log keeps the end of a stream. Its methods may be called together.
type Log struct {
	file  *os.File
	begun chan struct{}

	mu   sync.Mutex
	once sync.Once
	size int64
	tail []byte
}

// New keeps a stream in f, which it owns from here on. The log goes on where an
// earlier process left it if resume is set, else it starts empty.
func New(f *os.File, resume bool) (*Log, error) {
	l := &Log{file: f, begun: make(chan struct{})}
	var err error
	if resume {
		if l.size, err = f.Seek(0, io.SeekEnd); err == nil {
			l.tail = readEnd(f, l.size, maxTail)
		}
	} else {
		err = f.Truncate(0)
	}
	if err != nil {
		_ = f.Close() // nothing was written
		return nil, err
	}
	return l, nil
}

// Begun is closed when something has come.
func (l *Log) Begun() <-chan struct{} { return l.begun }

// Write keeps p. It does not fail: a full disk must not stop the stream.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.once.Do(func() { close(l.begun) })
	l.tail = append(l.tail, p...)
	if n := len(l.tail) - maxTail; n > 0 {
		l.tail = append(l.tail[:0], l.tail[n:]...)
	}
	if l.size+int64(len(p)) > MaxFile {
		l.shorten()
	}
	n, _ := l.file.WriteAt(p, l.size)
	l.size += int64(n)
	return len(p), nil
}

// shorten drops the older half of the file.
func (l *Log) shorten() {
	keep := readEnd(l.file, l.size, MaxFile/2)
	n, _ := l.file.WriteAt(keep, 0)
	l.size = int64(n)
	_ = l.file.Truncate(l.size) // if it fails the file is longer than it should be, and still bounded
}

// Tail returns the end of the stream.
func (l *Log) Tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.tail)
}

// Close closes the file.
func (l *Log) Close() error { return l.file.Close() }

// readEnd returns at most n bytes from the end of a file of the given size.
func readEnd(f io.ReaderAt, size, n int64) []byte {
	b := make([]byte, min(n, size))
	got, _ := f.ReadAt(b, size-int64(len(b))) // a log that cannot be read is an empty one
	return b[:got]
}
