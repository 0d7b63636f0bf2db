package logline

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/frame"
)

// Source is where a process's output comes from, as instance.Attachment describes it.
type Source interface {
	Recv() (frame.Frame, error)
}

// Relay sends a process's output line by line, each as entry with its text, until the
// process ends, and returns its status. A line without an end that is longer than most bytes
// is sent in parts.
func Relay(x Source, entry api.LogEntry, most int, out func(api.LogEntry)) (int32, error) {
	open := map[frame.Type][]byte{}
	send := func(t frame.Type, line []byte, whole bool) {
		e := entry
		e.Open = !whole
		e.TS, e.Stream = time.Now().UTC(), streamName(t)
		setLine(&e, line)
		out(e)
	}
	for {
		f, err := x.Recv()
		if errors.Is(err, io.EOF) {
			return 0, fault.New(fault.Internal, "the command's output ended without a status")
		}
		if err != nil {
			return 0, err
		}
		if f.Type == frame.Exit {
			for t, rest := range open {
				if len(rest) > 0 {
					send(t, rest, false)
				}
			}
			return f.Status()
		}
		if f.Type == frame.Notice {
			continue // these lines have no place for it
		}
		rest := slices.Concat(open[f.Type], f.Payload)
		for {
			line, after, whole := bytes.Cut(rest, []byte{'\n'})
			if !whole && len(rest) < most {
				break
			}
			send(f.Type, line, whole)
			rest = after
		}
		open[f.Type] = rest
	}
}

func streamName(t frame.Type) string {
	if t == frame.Stderr {
		return "stderr"
	}
	return "stdout"
}

// setLine sets the entry's text. JSON has no place for bytes that are not UTF-8: they
// go along as they are.
func setLine(e *api.LogEntry, line []byte) {
	e.Line = string(line)
	if !utf8.Valid(line) {
		e.Bytes = line
	}
}
