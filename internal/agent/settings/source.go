package settings

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/secret"
	"github.com/xfeldman/aegisvm/internal/strictjson"
)

// maxFile bounds agent.json, in bytes.
const maxFile = 1 << 20

// Decode reads what agent.json holds, and the environment over it.
func Decode(data []byte, getenv func(string) string) (*Settings, error) {
	s := &Settings{}
	if len(bytes.TrimSpace(data)) > 0 {
		if err := strictjson.Decode(data, s); err != nil {
			return nil, fault.New(fault.Invalid, "%v", strictjson.Explain(data, err))
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
