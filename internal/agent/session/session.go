package session

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/agent/history"
	"github.com/xfeldman/aegisvm/internal/atomicfile"
)

// Window bounds what a Session keeps in memory. It is at least what is sent to a model.
type Window struct {
	Chars int // see history.Message.Chars
	Turns int
}

// rememberIDs is of how many frames a session knows the ids. The host sends again only
// the last one.
const rememberIDs = 256

// Session is one conversation and its file.
type Session struct {
	Key    api.Session
	file   *os.File
	window Window
	now    func() time.Time

	messages []history.Message // the newest, not repaired
	chars    int               // of messages
	high     int64             // the highest Seq taken
	ids      []string          // MsgIDs of frames taken, the newest last
	open     *Taken            // the newest user's message, while it has no End
	resumed  int               // how often work on open was taken up again
	bad      int               // lines that could not be read
}

// Open opens the session's file in dir, making it if there is none, and reads what is
// within window.
func Open(dir string, key api.Session, window Window) (*Session, error) {
	path := filepath.Join(dir, FileName(key))
	_, err := os.Stat(path)
	fresh := errors.Is(err, os.ErrNotExist)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open session: %w", err)
	}
	s := &Session{Key: key, file: f, window: window, now: time.Now}
	if err := s.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("read session %s: %w", path, err), f.Close())
	}
	if fresh {
		if err := atomicfile.SyncDir(dir); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return s, nil
}

// load reads the file, and cuts off a last line that has no end.
func (s *Session) load() error {
	r := bufio.NewReaderSize(s.file, 64<<10)
	whole := int64(0)
	for {
		line, n, err := readLine(r)
		if errors.Is(err, io.EOF) {
			if n > 0 {
				return s.file.Truncate(whole)
			}
			return nil
		}
		if err != nil {
			return err
		}
		whole += n
		rec, err := decode(line)
		if err != nil {
			s.bad++
			continue
		}
		s.apply(rec)
	}
}

// readLine returns the next line, and its length with what ends it. A line that is longer
// than maxLine comes back empty. At the end of the file n is what is left without an end.
func readLine(r *bufio.Reader) (line []byte, n int64, err error) {
	for {
		part, err := r.ReadSlice('\n')
		n += int64(len(part))
		if n <= maxLine {
			line = append(line, part...)
		} else {
			line = nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, n, err
		}
	}
}

// apply takes a record into memory.
func (s *Session) apply(r Record) {
	if t := r.Taken; t != nil {
		s.high = max(s.high, t.Seq)
		s.ids = append(s.ids, t.MsgID)
		if len(s.ids) > rememberIDs {
			s.ids = slices.Delete(s.ids, 0, len(s.ids)-rememberIDs)
		}
		if r.Message != nil {
			s.open, s.resumed = t, 0
		}
	}
	if s.open != nil {
		switch s.open.MsgID {
		case r.End:
			s.open = nil
		case r.Resumed:
			s.resumed++
		}
	}
	if r.Message != nil {
		s.messages = append(s.messages, *r.Message)
		s.chars += r.Message.Chars()
		s.shrink()
	}
}

// shrink forgets the oldest turns, once there is twice as much as the window: then what
// is left is moved seldom.
func (s *Session) shrink() {
	if s.window.Chars <= 0 || s.chars <= 2*s.window.Chars {
		return
	}
	users := 0
	for i, m := range slices.Backward(s.messages) {
		if m.Role != history.User {
			continue
		}
		users++
		rest := 0
		for _, m := range s.messages[i:] {
			rest += m.Chars()
		}
		if rest >= s.window.Chars || (s.window.Turns > 0 && users >= s.window.Turns) {
			s.messages = slices.Clone(s.messages[i:])
			s.chars = rest
			return
		}
	}
}

// Append makes a record durable, and then part of the session. After an error the session
// is as it was.
func (s *Session) Append(r Record) error {
	r.TS = s.now().UTC()
	line, err := encode(r)
	if err != nil {
		return err
	}
	end, err := s.file.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("write session: %w", err)
	}
	if _, err = s.file.Write(line); err == nil {
		err = s.file.Sync()
	}
	if err != nil {
		// What was written of it must not become the beginning of the next line.
		return errors.Join(fmt.Errorf("write session: %w", err), s.file.Truncate(end))
	}
	s.apply(r)
	return nil
}

// Knows reports whether a frame was taken before. The number alone does not tell: a
// workspace may have come from another instance, whose numbers were others. A frame with a
// lower number than the last and an id that was never seen is of a new series.
func (s *Session) Knows(f api.Frame) bool {
	return f.Seq != 0 && f.Seq <= s.high && slices.Contains(s.ids, f.MsgID)
}

// Messages returns what is in memory of the conversation, in the order of the file. It
// need not be valid: see history.Repair.
func (s *Session) Messages() []history.Message { return slices.Clone(s.messages) }

// Unanswered returns the user's message that has not been answered to the end, or nil, and how
// often work on it was taken up again.
func (s *Session) Unanswered() (*Taken, int) { return s.open, s.resumed }

// Unreadable is how many lines of the file were left out.
func (s *Session) Unreadable() int { return s.bad }

// Close closes the file.
func (s *Session) Close() error { return s.file.Close() }
