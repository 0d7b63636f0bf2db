package daemon

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"

	"github.com/xfeldman/aegisvm/internal/config"
	"github.com/xfeldman/aegisvm/internal/size"
)

// logFile is a log that is cut off at a size. The same file stays open: the daemon's
// own stderr, on which a crash is told, may be another descriptor of it.
type logFile struct {
	path string
	max  int64

	mu   sync.Mutex
	file *os.File
	size int64
}

func openLog(path string, limit size.Bytes) (*logFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	fi, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &logFile{path: path, max: int64(limit), file: f, size: fi.Size()}, nil
}

// Write appends lines.
func (l *logFile) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size > 0 && l.size+int64(len(b)) > l.max {
		if err := l.cut(); err != nil {
			return 0, err
		}
	}
	n, err := l.file.Write(b)
	l.size += int64(n)
	return n, err
}

// cut moves what the log holds to <path>.1.
func (l *logFile) cut() error {
	old, err := os.OpenFile(l.path+".1", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(old, io.NewSectionReader(l.file, 0, l.size))
	if err := errors.Join(err, old.Close()); err != nil {
		return err
	}
	l.size = 0
	return l.file.Truncate(0)
}

// Close closes the file.
func (l *logFile) Close() error { return l.file.Close() }

// newLogger returns a logger in the form that the settings ask for.
func newLogger(w io.Writer, conf *config.Config) *slog.Logger {
	opts := &slog.HandlerOptions{Level: conf.LogLevel}
	if conf.LogFormat == config.LogJSON {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}
