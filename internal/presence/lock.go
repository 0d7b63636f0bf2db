package presence

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Lock is a lock that this process holds.
type Lock struct{ f *os.File }

// HeldError reports a lock that another process holds.
type HeldError struct {
	Path string
	PID  int // of the holder
}

// Error implements error.
func (e *HeldError) Error() string { return fmt.Sprintf("%s is locked by process %d", e.Path, e.PID) }

// Acquire takes the lock at path, or fails at once with a *HeldError.
func Acquire(path string) (*Lock, error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, whole(unix.F_WRLCK))
		if err == nil {
			return &Lock{f}, nil
		}
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		pid, err := holder(f)
		if err != nil || pid != 0 {
			return nil, errors.Join(err, &HeldError{path, pid}, f.Close())
		}
		// Given back in between: try again.
	}
}

// AcquireWait takes the lock at path, after whoever holds it now. Where ctx ends
// first, the wait itself goes on until the process ends: the kernel offers no way
// to call it off.
func AcquireWait(ctx context.Context, path string) (*Lock, error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	got := make(chan error, 1)
	go func() { // ends with the lock's holder
		for {
			err := unix.FcntlFlock(f.Fd(), unix.F_SETLKW, whole(unix.F_WRLCK))
			if !errors.Is(err, unix.EINTR) {
				got <- err
				return
			}
		}
	}()
	select {
	case err := <-got:
		if err != nil {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		return &Lock{f}, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Release gives the lock back. The file stays: removing it would let two processes
// hold two files of the same name.
func (l *Lock) Release() error { return l.f.Close() }

// Holder returns the process that holds the lock at path, or 0. A lock file that
// does not exist is held by nobody.
func Holder(path string) (int, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	pid, err := holder(f)
	return pid, errors.Join(err, f.Close())
}

func open(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // named by the caller
}

func holder(f *os.File) (int, error) {
	l := whole(unix.F_WRLCK)
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, l); err != nil {
		return 0, fmt.Errorf("ask for the holder of %s: %w", f.Name(), err)
	}
	if l.Type == unix.F_UNLCK {
		return 0, nil
	}
	return int(l.Pid), nil
}

func whole(kind int16) *unix.Flock_t {
	return &unix.Flock_t{Type: kind, Whence: io.SeekStart}
}
