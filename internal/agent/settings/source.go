package settings

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/secret"
)

// maxFile bounds agent.json, in bytes.
const maxFile = 1 << 20

// Decode reads what agent.json holds, and the environment over it.
func Decode(data []byte, getenv func(string) string) (*Settings, error) {
	s := &Settings{}
	if len(bytes.TrimSpace(data)) > 0 {
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.DisallowUnknownFields()
		if err := dec.Decode(s); err != nil {
			return nil, misread(data, dec.InputOffset(), err)
		}
		if _, err := dec.Token(); !errors.Is(err, io.EOF) {
			return nil, fault.New(fault.Invalid, "line %d: there is more after the end", line(data, dec.InputOffset()))
		}
	}
	if err := s.fill(getenv); err != nil {
		return nil, err
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	return s, nil
}

// misread says where in a file an error is, in a user's words.
func misread(data []byte, at int64, err error) error {
	msg := strings.TrimPrefix(err.Error(), "json: ")
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		at = e.Offset
	}
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		at, msg = e.Offset, fmt.Sprintf("%q is a %s, and ought to be a %s", e.Field, e.Value, e.Type)
	}
	if name, ok := strings.CutPrefix(msg, "unknown field "); ok {
		if i := bytes.Index(data, []byte(name)); i >= 0 {
			at = int64(i)
		}
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		at, msg = int64(len(data)), "it ends in the middle"
	}
	return fault.New(fault.Invalid, "line %d: %s", line(data, at), msg)
}

func line(data []byte, at int64) int {
	at = min(max(at, 0), int64(len(data)))
	return 1 + bytes.Count(data[:at], []byte("\n"))
}

// Source is a file of settings over time. One goroutine at a time uses it.
type Source struct {
	Path   string
	Getenv func(string) string

	good *Settings
	seen fs.FileInfo
	err  error
}

// Load returns the settings in force. It reads the file only if it has changed. With an
// error come the last settings that were right, or nil if there were none.
func (s *Source) Load() (*Settings, error) {
	fi, err := os.Stat(s.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		fi = nil
	case err != nil:
		return s.good, fault.Wrap(fault.Unavailable, err, "read %s", s.Path)
	}
	if (s.good != nil || s.err != nil) && same(fi, s.seen) {
		return s.good, s.err
	}
	var data []byte
	if fi != nil {
		if data, err = read(s.Path); err != nil {
			return s.good, err
		}
	}
	s.seen = fi
	now, err := Decode(data, s.Getenv)
	if s.err = nil; err != nil {
		s.err = fault.Wrap(fault.Invalid, err, "%s", s.Path).WithHint("mend the file: it is read again with your next message")
		return s.good, s.err
	}
	s.good = now
	return now, nil
}

func same(a, b fs.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size() && os.SameFile(a, b)
}

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "read settings")
	}
	defer f.Close() //nolint:errcheck // only read
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "read %s", path)
	}
	if len(data) > maxFile {
		return nil, fault.New(fault.TooLarge, "%s is larger than %d bytes", path, maxFile)
	}
	return data, nil
}

func secretOf(getenv func(string) string, name string) secret.Value { return secret.New(getenv(name)) }
