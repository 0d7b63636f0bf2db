package instance

import (
	"context"
	"iter"
	"time"

	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// Logs keeps what the processes of persistent instances write. Package logstore
// implements it.
type Logs interface {
	// Open opens the log of an instance, for the one writer it has.
	Open(id ID) (Log, error)
}

// Log is where the output of one instance goes, and where it is read. Its methods
// may be called together.
type Log interface {
	// Program stores output of the instance's program that ends at offset in the
	// guest's output log.
	Program(stream frame.Type, data []byte, offset uint64) error

	// Exec stores output of another process.
	Exec(id guestproto.ExecID, stream frame.Type, data []byte) error

	// System stores a remark of AegisVM's own.
	System(text string) error

	// End stores a remark that ends a run of the program: nothing of it follows.
	End(text string) error

	// Offset returns how far the program's output is stored.
	Offset() uint64

	// Restart begins a new output log: Offset is 0 again, for later writers too unless it
	// returns an error.
	Restart() error

	// Skip begins in the middle of another output log: Offset is offset, for later writers
	// too, and nothing is stored of what comes before.
	Skip(offset uint64) error

	// Lines returns the lines that q asks for, oldest first. A reader that is slow or
	// leaves disturbs neither the writer nor other readers.
	Lines(ctx context.Context, q LogQuery) iter.Seq2[LogLine, error]

	// Close ends the log; followers get what is left, then the end.
	Close() error
}

// LogSource is whose output a line is.
type LogSource uint8

// The sources. They are part of the log's form on disk.
const (
	FromProgram LogSource = 1 // the instance's own command
	FromExec    LogSource = 2 // a command run in it later
	FromSystem  LogSource = 3 // AegisVM's own remarks
)

// LogQuery says which lines to read.
type LogQuery struct {
	Since  time.Time         // lines of that time and later; zero is all
	Tail   int               // only the last lines; negative is all
	Follow bool              // go on with what comes, until ctx ends or the log is closed
	Execs  bool              // lines of all execs too
	Exec   guestproto.ExecID // only lines of this one
}

// Wants reports whether q asks for lines of a source.
func (q LogQuery) Wants(source LogSource, exec guestproto.ExecID) bool {
	if q.Exec != "" {
		return source == FromExec && exec == q.Exec
	}
	return source != FromExec || q.Execs
}

// LogLine is one line of output, without its end.
type LogLine struct {
	Time   time.Time  // when its first byte came
	Stream frame.Type // Stdout or Stderr
	Source LogSource
	Exec   guestproto.ExecID
	Text   []byte
	// Open says that the line has no end yet: what is left of a process that ended
	// without one, or the prompt of one that waits.
	Open bool
	// End says that a run of the program is over: a remark that tells how.
	End bool
	// Gap says that rotation dropped output before this line; it has no text.
	Gap bool
}

// Lines returns lines of an instance's log. A follower learns when the Set closes: that
// is not the end of its instance.
func (s *Set) Lines(ctx context.Context, ref string, q LogQuery) (iter.Seq2[LogLine, error], error) {
	a, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	if a.output == nil {
		return func(func(LogLine, error) bool) {}, nil // of a run: its client has it all
	}
	return func(yield func(LogLine, error) bool) {
		for line, err := range a.output.Lines(ctx, q) {
			if !yield(line, err) || err != nil {
				return
			}
		}
		if q.Follow && s.isClosing() {
			yield(LogLine{}, errClosing)
		}
	}, nil
}

// Note writes a line of AegisVM's own into an instance's log, if there is such an instance.
func (s *Set) Note(ref, line string) {
	if a, err := s.find(ref); err == nil {
		a.remark("%s", line)
	}
}
