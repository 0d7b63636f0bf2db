package probe

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// Verdict is the outcome of a trial.
type Verdict struct {
	Works bool
	Why   string // one sentence for people
}

// Trial finds something out. What it returns with an error is not remembered.
type Trial func(ctx context.Context) (Verdict, error)

// Store is a folder of verdicts.
type Store struct {
	Dir  string
	Boot string // names the time since the host was started
}

// DefaultDir returns the folder of this user's verdicts.
func DefaultDir() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "aegisvm")
	}
	name := "aegisvm-" + strconv.Itoa(os.Geteuid())
	if os.Geteuid() == 0 {
		if fi, err := os.Stat("/run"); err == nil && fi.IsDir() {
			return filepath.Join("/run", name)
		}
	}
	return filepath.Join(os.TempDir(), name)
}

// Once returns the verdict that is remembered for key, or makes the trial.
// Processes that ask at the same time wait for the one that tries. Where nothing
// can be remembered the trial is made each time.
func (s *Store) Once(ctx context.Context, key string, trial Trial) (Verdict, error) {
	if err := s.prepare(); err != nil {
		return trial(ctx)
	}
	sum := sha256.Sum256([]byte(s.Boot + "\x00" + key))
	path := filepath.Join(s.Dir, "verdict-"+hex.EncodeToString(sum[:12]))
	if v, err := read(path); err == nil {
		return v, nil
	}
	unlock, err := lock(ctx, path+".lock")
	if err != nil {
		return Verdict{}, err
	}
	defer unlock()
	if v, err := read(path); err == nil {
		return v, nil // somebody was faster
	}
	v, err := trial(ctx)
	if err == nil {
		// A verdict that cannot be kept is found again, only later.
		_ = write(path, v)
	}
	return v, err
}

var errUnsafe = errors.New("not private to this user")

// prepare makes the folder and refuses one that others could have prepared.
func (s *Store) prepare() error {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return err
	}
	fi, err := os.Lstat(s.Dir)
	if err != nil {
		return err
	}
	if !fi.IsDir() || !private(fi) {
		return fmt.Errorf("%s: %w", s.Dir, errUnsafe)
	}
	return nil
}

func read(path string) (Verdict, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|noFollow, 0)
	if err != nil {
		return Verdict{}, err
	}
	defer f.Close() //nolint:errcheck // only read
	fi, err := f.Stat()
	if err != nil {
		return Verdict{}, err
	}
	if !fi.Mode().IsRegular() || !private(fi) {
		return Verdict{}, fmt.Errorf("%s: %w", path, errUnsafe)
	}
	var v Verdict
	err = json.NewDecoder(io.LimitReader(f, 1<<16)).Decode(&v)
	return v, err
}

// write replaces the verdict in one step: readers take no lock.
func write(path string, v Verdict) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // gone if all went well
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// lockRetry is how often a lock that another process holds is tried: the kernel
// has no event for its release that a context could end.
const lockRetry = 50 * time.Millisecond

func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|noFollow, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := tryLock(f)
		if err == nil {
			return func() { _ = f.Close() }, nil // closing unlocks
		}
		if !errors.Is(err, errLocked) {
			_ = f.Close()
			return nil, err
		}
		select {
		case <-time.After(lockRetry):
		case <-ctx.Done():
			_ = f.Close()
			return nil, context.Cause(ctx)
		}
	}
}
