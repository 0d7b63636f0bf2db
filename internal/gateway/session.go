package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/atomicfile"
)

// Session is one conversation of a channel, as Serve meets it. Its methods are for the
// goroutine that runs Serve.
type Session struct {
	// ID is the session's id in the tether.
	ID string

	line   *Line
	file   string
	before int64         // seq of the last answer that was shown when the session was opened
	kept   record        // of the goroutine that runs Serve
	ready  chan struct{} // has a value when something waits

	mu      sync.Mutex
	waiting []Event
	gap     bool
}

// record is what a session's file holds.
type record struct {
	Shown int64           `json:"shown"` // seq of the last answer that was shown
	Note  json.RawMessage `json:"note,omitempty"`
}

// openSession returns the session as its file has it.
func openSession(l *Line, id, file string) (*Session, error) {
	s := &Session{ID: id, line: l, file: file, ready: make(chan struct{}, 1), gap: true}
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &s.kept); err != nil {
		return nil, fmt.Errorf("decode %s: %w", file, err)
	}
	s.before = s.kept.Shown
	return s, nil
}

// Ready has a value when Take returns something.
func (s *Session) Ready() <-chan struct{} { return s.ready }

// Take returns what has come since the last time. With gap there may have been deltas
// before it that nobody has seen: the answer under way is known only when it is done.
func (s *Session) Take() (events []Event, gap bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	events, gap = s.waiting, s.gap
	s.waiting, s.gap = nil, false
	return events, gap
}

// Note decodes what Keep kept last into v, and tells whether there is anything.
func (s *Session) Note(v any) (bool, error) {
	if len(s.kept.Note) == 0 {
		return false, nil
	}
	return true, json.Unmarshal(s.kept.Note, v)
}

// Keep makes v durable: Note finds it also after the process was killed. Nil is nothing.
func (s *Session) Keep(v any) error { return s.write(s.kept.Shown, v) }

// Shown says that an answer has been shown, and keeps v in the same step. The answer
// does not come again.
func (s *Session) Shown(e Event, v any) error {
	err := s.write(max(s.kept.Shown, e.Seq), v)
	s.line.shown(e.Seq)
	return err
}

func (s *Session) write(shown int64, v any) error {
	rec := record{Shown: shown}
	if v != nil {
		note, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("encode a note: %w", err)
		}
		rec.Note = note
	}
	s.kept = rec // also where it cannot be written: what was shown is not shown again
	b, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(s.file), 0o700); err != nil {
		return err
	}
	return atomicfile.Write(s.file, b, 0o600)
}

// push adds an event for Serve.
func (s *Session) push(e Event) {
	s.mu.Lock()
	s.waiting = merge(s.waiting, e)
	s.mu.Unlock()
	s.wake()
}

// missed says that deltas may have been lost. It is no reason to wake.
func (s *Session) missed() {
	s.mu.Lock()
	s.gap = true
	s.mu.Unlock()
}

func (s *Session) wake() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// working is the event that says that somebody waits for the agent.
var working = Event{Type: api.FramePresence, State: "working"}
