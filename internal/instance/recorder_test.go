package instance

import (
	"errors"
	"io/fs"
	"log/slog"
	"strings"
	"syscall"
	"testing"

	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// fullLog is a stubLog on a disk that may be full.
type fullLog struct {
	stubLog
	err  error
	room int // writes that still succeed
}

func (l *fullLog) fits() error {
	if l.room > 0 {
		l.room--
		return nil
	}
	return l.err
}

func (l *fullLog) Program(t frame.Type, data []byte, offset uint64) error {
	if err := l.fits(); err != nil {
		return err
	}
	return l.stubLog.Program(t, data, offset)
}

func (l *fullLog) Exec(id guestproto.ExecID, t frame.Type, data []byte) error {
	if err := l.fits(); err != nil {
		return err
	}
	return l.stubLog.Exec(id, t, data)
}

func (l *fullLog) System(text string) error {
	if err := l.fits(); err != nil {
		return err
	}
	return l.stubLog.System(text)
}

func (l *fullLog) End(text string) error {
	if err := l.fits(); err != nil {
		return err
	}
	return l.stubLog.End("end: " + text)
}

// TestRecorder fills the disk and makes room again: the log tells of what is missing in
// it, in its place, and the daemon's log is not flooded.
func TestRecorder(t *testing.T) {
	var daemon strings.Builder
	disk := &fullLog{}
	r := &recorder{Log: disk, log: slog.New(slog.NewTextHandler(&daemon, nil))}
	write := func(text string) {
		t.Helper()
		if err := errors.Join(r.Program(frame.Stdout, []byte(text), 0)); err != nil {
			t.Error(err)
		}
	}
	write("one\n")
	disk.err = syscall.ENOSPC
	for range 1000 {
		write("lost\n")
	}
	if err := r.System("the disk is full"); err != nil {
		t.Error(err)
	}
	if err := r.End("exited"); err != nil {
		t.Error(err)
	}
	if err := r.Exec("exec-1", frame.Stdout, []byte("lost too\n")); err != nil {
		t.Error(err)
	}
	disk.room = 1 // for the first line of the confession only
	write("still lost\n")
	disk.err, disk.room = nil, 0
	write("two\n")
	want := "one\n[system] 4.9 KB of output were lost here: no space left on device\n" +
		"[system] 11 B of output were lost here: no space left on device\n[system] the disk is full\n[system] end: exited\ntwo\n"
	if got := disk.String(); got != want {
		t.Errorf("log:\n%s\nwant:\n%s", got, want)
	}
	if got := daemon.String(); strings.Count(got, "\n") > 4 || !strings.Contains(got, "output is lost") || !strings.Contains(got, "stored again") {
		t.Errorf("the daemon's log:\n%s", got)
	}
}

// TestRecorderClosed tells its user that the log has ended: what came is not stored, and
// nothing may say that it is.
func TestRecorderClosed(t *testing.T) {
	r := &recorder{Log: &fullLog{err: fs.ErrClosed}, log: slog.New(slog.DiscardHandler)}
	if err := r.Program(frame.Stdout, []byte("x"), 1); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("program: %v", err)
	}
	if err := r.System("x"); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("system: %v", err)
	}
}

// TestRecorderForgets keeps no more remarks than it may.
func TestRecorderForgets(t *testing.T) {
	disk := &fullLog{err: syscall.ENOSPC}
	r := &recorder{Log: disk, log: slog.New(slog.DiscardHandler)}
	for range 10 * maxRemarks {
		if err := r.System("full"); err != nil {
			t.Error(err)
		}
	}
	disk.err = nil
	if err := r.System("empty"); err != nil {
		t.Error(err)
	}
	if got := strings.Count(disk.String(), "full"); got != maxRemarks {
		t.Errorf("%d remarks", got)
	}
}
