package logstore

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/instance"
)

// Limits bounds what a Log keeps on disk.
type Limits struct {
	Segment  int64 // bytes of one segment
	Segments int   // how many are kept, the newest included
}

// DefaultLimits keep 96 to 112 MB of records for each instance.
var DefaultLimits = Limits{Segment: 16 << 20, Segments: 7}

// Log is the log of one instance. Its methods may be called together.
type Log struct {
	dir    string
	limits Limits

	mu     sync.Mutex
	file   *os.File // the newest segment; nil after Close
	seq    uint64   // its number
	first  uint64   // the oldest segment's number
	size   int64    // of the newest segment
	offset uint64   // of the program, see Offset
	buf    []byte
	grown  chan struct{} // closed and replaced when something was appended
}

// Open opens the log in dir, which is made if need be, and cuts off what a dead
// writer left half written.
func Open(dir string, limits Limits) (*Log, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	seqs, err := segments(dir)
	if err != nil {
		return nil, err
	}
	l := &Log{dir: dir, limits: limits, grown: make(chan struct{})}
	if len(seqs) == 0 {
		seqs = []uint64{1}
	}
	l.first, l.seq = seqs[0], seqs[len(seqs)-1]
	for _, seq := range slices.Backward(seqs) {
		end, offset, told, err := scan(l.path(seq))
		if err != nil {
			return nil, err
		}
		if seq == l.seq {
			l.size = end
		}
		if l.offset = offset; told {
			break
		}
	}
	l.file, err = os.OpenFile(l.path(l.seq), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := l.file.Truncate(l.size); err != nil {
		return nil, errors.Join(err, l.file.Close())
	}
	return l, nil
}

// segments lists the numbers of dir's segments in order.
func segments(dir string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var seqs []uint64
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".log")
		if n, err := strconv.ParseUint(name, 10, 64); ok && err == nil {
			seqs = append(seqs, n)
		}
	}
	slices.Sort(seqs)
	return seqs, nil
}

// scan returns where the whole records of a segment end, and the program's last
// offset in it, if there is one: told.
func scan(path string) (end int64, offset uint64, told bool, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, 0, false, nil
	}
	if err != nil {
		return 0, 0, false, err
	}
	defer func() { _ = f.Close() }() // only read
	for r := bufio.NewReaderSize(f, 64<<10); ; {
		rec, err := readRecord(r)
		if errors.Is(err, io.EOF) || errors.Is(err, errTorn) {
			return end, offset, told, nil
		}
		if err != nil {
			return 0, 0, false, fmt.Errorf("read %s: %w", path, err)
		}
		end += rec.size()
		if rec.Source == instance.FromProgram {
			offset, told = rec.Offset, true
		}
	}
}

func (l *Log) path(seq uint64) string {
	return filepath.Join(l.dir, fmt.Sprintf("%08d.log", seq))
}

// Append adds a record. An error leaves the log as it was. A zero Time is now.
func (l *Log) Append(r Record) error {
	if r.Time.IsZero() {
		r.Time = time.Now()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return os.ErrClosed
	}
	if l.size > 0 && l.size+r.size() > l.limits.Segment {
		if err := l.rotate(); err != nil {
			return fmt.Errorf("rotate log: %w", err)
		}
	}
	// The offset is in every segment: those that have it from the program are dropped while
	// others write.
	if l.size == 0 && l.offset > 0 && r.Source != instance.FromProgram {
		if err := l.write(Record{Time: r.Time, Stream: frame.Stdout, Source: instance.FromProgram, Offset: l.offset}); err != nil {
			return err
		}
	}
	if err := l.write(r); err != nil {
		return err
	}
	if r.Source == instance.FromProgram {
		l.offset = r.Offset
	}
	close(l.grown)
	l.grown = make(chan struct{})
	return nil
}

// write adds a record to the newest segment. The caller holds mu.
func (l *Log) write(r Record) error {
	b, err := r.encode(l.buf[:0])
	if err != nil {
		return err
	}
	l.buf = b
	// At the record's place, not at the file's: a write that was cut short by a full
	// disk is overwritten by the next one.
	if _, err := l.file.WriteAt(b, l.size); err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	l.size += int64(len(b))
	return nil
}

// rotate begins a new segment and drops the oldest. The caller holds mu.
func (l *Log) rotate() error {
	next, err := os.OpenFile(l.path(l.seq+1), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = l.file.Close()
	l.file, l.size = next, 0
	l.seq++
	for l.seq-l.first >= uint64(max(1, l.limits.Segments)) {
		err = errors.Join(err, os.Remove(l.path(l.first)))
		l.first++
	}
	return err
}

// Offset returns how far the program's output is stored: where to go on in the
// guest's output log.
func (l *Log) Offset() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.offset
}

// Restart forgets the offset: a new start of the program begins a new output log. A daemon
// that comes next has to know that too, even if the program never writes a word: it would
// ask the guest for what comes behind all that the run before has written. After an error
// only this one knows.
func (l *Log) Restart() error {
	l.mu.Lock()
	was := l.offset
	l.offset = 0
	l.mu.Unlock()
	if was == 0 {
		return nil
	}
	return l.Append(Record{Stream: frame.Stdout, Source: instance.FromProgram})
}

// Close ends the log. Readers that follow it get what is left, then the end.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	close(l.grown)
	return err
}

// state tells a reader what there is to read now, and how to wait for more.
func (l *Log) state() (first, last uint64, size int64, grown <-chan struct{}, open bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first, l.seq, l.size, l.grown, l.file != nil
}
