package logstore

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"slices"
	"time"

	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/instance"
)

// maxLine bounds the memory that one unfinished line may take; a longer one is
// returned in parts, all but the last Open.
const maxLine = 16 << 20

// Lines returns the lines of the log that q asks for, oldest first.
func (l *Log) Lines(ctx context.Context, q instance.LogQuery) iter.Seq2[instance.LogLine, error] {
	return func(yield func(instance.LogLine, error) bool) {
		a := assembler{yield: yield, since: q.Since, skip: 0}
		if q.Tail >= 0 {
			n, err := l.count(ctx, q)
			if err != nil {
				yield(instance.LogLine{}, err)
				return
			}
			a.skip = max(0, n-q.Tail)
		}
		err := l.records(ctx, q, a.add)
		if a.stopped {
			return
		}
		if err != nil {
			yield(instance.LogLine{}, err)
			return
		}
		a.flush()
	}
}

// count returns how many lines q would give now.
func (l *Log) count(ctx context.Context, q instance.LogQuery) (int, error) {
	n := 0
	a := assembler{since: q.Since, yield: func(instance.LogLine, error) bool { n++; return true }}
	q.Follow = false
	if err := l.records(ctx, q, a.add); err != nil {
		return 0, err
	}
	a.flush()
	return n, nil
}

// errStop ends reading early, on the reader's wish.
var errStop = errors.New("stop")

// records calls add for each record that q wants; for a gap it calls it with a
// zero Source.
func (l *Log) records(ctx context.Context, q instance.LogQuery, add func(Record) error) error {
	seq, _, _, _, _ := l.state()
	for at := int64(0); ; {
		first, last, size, grown, open := l.state()
		if seq < first {
			if err := add(Record{}); err != nil {
				return ignoreStop(err)
			}
			seq, at = first, 0
		}
		end := size // of this segment, as far as it is written
		if seq < last {
			end = -1
		}
		next, err := l.read(seq, at, end, q, add)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if first, _, _, _, _ = l.state(); seq < first {
				continue // rotated away meanwhile
			}
			return nil // the instance is being deleted: it ends here for followers too
		case err != nil:
			return ignoreStop(err)
		case seq < last:
			seq, at = seq+1, 0
			continue
		}
		at = next
		if !q.Follow || !open {
			return nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func ignoreStop(err error) error {
	if errors.Is(err, errStop) {
		return nil
	}
	return err
}

// read reads a segment from at to end, or to its own end if that is negative.
func (l *Log) read(seq uint64, at, end int64, q instance.LogQuery, add func(Record) error) (int64, error) {
	f, err := os.Open(l.path(seq))
	if err != nil {
		return at, err
	}
	defer func() { _ = f.Close() }() // only read
	n := end - at
	if end < 0 {
		n = 1 << 62
	}
	r := bufio.NewReaderSize(io.NewSectionReader(f, at, n), 64<<10)
	for {
		rec, err := readRecord(r)
		if errors.Is(err, io.EOF) || errors.Is(err, errTorn) {
			return at, nil
		}
		if err != nil {
			return at, err
		}
		at += rec.size()
		if !q.Wants(rec.Source, rec.Exec) {
			continue
		}
		if err := add(rec); err != nil {
			return at, err
		}
	}
}

// assembler puts lines together from records, for each process and stream.
type assembler struct {
	yield   func(instance.LogLine, error) bool
	since   time.Time
	skip    int
	open    []*instance.LogLine // unfinished lines, oldest first
	stopped bool
}

func (a *assembler) add(r Record) error {
	if r.Source == 0 {
		return a.emit(instance.LogLine{Gap: true})
	}
	if r.Source == instance.FromSystem && r.Stream == frame.Exit {
		// What the next run writes does not go on with the last words of this one.
		if err := a.close(); err != nil {
			return err
		}
	}
	for data := r.Data; len(data) > 0; {
		i := bytes.IndexByte(data, '\n')
		part := data
		if i >= 0 {
			part, data = data[:i], data[i+1:]
		} else {
			data = nil
		}
		l := a.line(r)
		l.Text = append(l.Text, part...)
		if i < 0 && len(l.Text) < maxLine {
			continue
		}
		l.Open = i < 0
		a.drop(l)
		if err := a.emit(*l); err != nil {
			return err
		}
	}
	return nil
}

// line returns the unfinished line that r goes on with, or a new one.
func (a *assembler) line(r Record) *instance.LogLine {
	for _, l := range a.open {
		if l.Source == r.Source && l.Stream == r.Stream && l.Exec == r.Exec && !l.End {
			return l
		}
	}
	l := &instance.LogLine{Time: r.Time, Stream: r.Stream, Source: r.Source, Exec: r.Exec}
	if r.Source == instance.FromSystem && r.Stream == frame.Exit {
		l.Stream, l.End = frame.Stdout, true
	}
	a.open = append(a.open, l)
	return l
}

func (a *assembler) drop(done *instance.LogLine) {
	for i, l := range a.open {
		if l == done {
			a.open = append(a.open[:i], a.open[i+1:]...)
			return
		}
	}
}

func (a *assembler) emit(l instance.LogLine) error {
	switch {
	case !l.Gap && l.Time.Before(a.since):
		return nil
	case a.skip > 0:
		a.skip--
		return nil
	case !a.yield(l, nil):
		a.stopped = true
		return errStop
	}
	return nil
}

// close gives out what the program left without an end of line.
func (a *assembler) close() error {
	for _, l := range slices.Clone(a.open) {
		if l.Source != instance.FromProgram {
			continue
		}
		l.Open = true
		a.drop(l)
		if err := a.emit(*l); err != nil {
			return err
		}
	}
	return nil
}

// flush gives out what has no end of line.
func (a *assembler) flush() {
	for _, l := range a.open {
		l.Open = true
		if a.emit(*l) != nil {
			return
		}
	}
}
