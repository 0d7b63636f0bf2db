package bench

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/machine"
)

// logTail is what a daemon's log says from some moment on.
type logTail struct {
	path string
	from int64
}

// openLog begins to follow a log where it ends now.
func openLog(path string) (*logTail, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	return &logTail{path, fi.Size()}, nil
}

// savePause returns how long after the beginning of its pause the state of an instance was
// saved, in milliseconds.
func (l *logTail) savePause(handle string) (float64, error) {
	f, err := os.Open(l.path)
	if err != nil {
		return 0, err
	}
	defer f.Close() //nolint:errcheck // only read
	if _, err := f.Seek(l.from, io.SeekStart); err != nil {
		return 0, err
	}
	return savePauseIn(f, handle)
}

var errNotLogged = errors.New("the daemon's log does not tell of a save")

func savePauseIn(r io.Reader, handle string) (float64, error) {
	var began time.Time
	id := ""
	for in := bufio.NewScanner(r); in.Scan(); {
		var line struct {
			Time                      time.Time
			Msg, To, Handle, Instance string
		}
		if err := json.Unmarshal(in.Bytes(), &line); err != nil {
			return 0, fmt.Errorf("the daemon's log: %w", err)
		}
		switch {
		case line.Handle == handle && line.To == instance.Pausing.String():
			began, id = line.Time, line.Instance
		case line.Msg == machine.SavedMessage && line.Instance == id && id != "":
			return float64(line.Time.Sub(began).Microseconds()) / 1000, nil
		}
	}
	return 0, errNotLogged
}
