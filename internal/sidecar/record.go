package sidecar

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/xfeldman/aegisvm/internal/atomicfile"
	"github.com/xfeldman/aegisvm/internal/logattr"
)

// record is a process that was started, for a later daemon.
type record struct {
	PID   int    `json:"pid"`   // and number of its process group
	Start string `json:"start"` // when it was started, in the words of startOf
	Mark  string `json:"mark"`  // in its environment
}

// record notes a process on disk; forget takes that back. Where it cannot be noted the
// sidecar runs all the same: other means end it with its daemon.
func (k *keeper) record(ctx context.Context, cmd *exec.Cmd) (forget func()) {
	r := record{PID: cmd.Process.Pid}
	for _, e := range cmd.Env {
		if v, ok := strings.CutPrefix(e, markVariable+"="); ok {
			r.Mark = v
		}
	}
	path := filepath.Join(k.s.o.Home.Sidecars(), k.post.group.ID+"-"+k.program.Name+".json")
	var err error
	if r.Start, err = startOf(r.PID); errors.Is(err, fs.ErrNotExist) {
		return func() {} // it has ended already
	}
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o700)
	}
	if err == nil {
		b, _ := json.Marshal(r) // of strings and numbers; cannot fail
		err = atomicfile.Write(path, append(b, '\n'), 0o600)
	}
	if err != nil {
		k.s.o.Log.WarnContext(ctx, "a sidecar is not on record", logattr.Part(k.program.Name), logattr.Err(err))
	}
	return func() { _ = os.Remove(path) } // of a process that has ended nobody is misled
}

// Recover ends the sidecars that a daemon left which was killed. It is called before
// anything is wanted.
func (s *Supervisor) Recover(ctx context.Context) error {
	dir := s.o.Home.Sidecars()
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("end the sidecars of an earlier daemon: %w", err)
	}
	var errs []error
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		b, err := os.ReadFile(path)
		var r record
		if err == nil && json.Unmarshal(b, &r) == nil && r.PID > 1 && r.Mark != "" { // what is not whole speaks of none
			err = s.endLeft(ctx, r)
		}
		if err == nil {
			err = os.Remove(path)
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("end the sidecars of an earlier daemon: %w", err)
	}
	return nil
}

// recheck is how often one looks whether a process is gone that is nobody's child here.
const recheck = 10 * time.Millisecond

// endLeft kills what is left of a recorded process and its group.
func (s *Supervisor) endLeft(ctx context.Context, r record) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.o.Limits.Grace, fmt.Errorf("process %d does not end", r.PID))
	defer cancel()
	for {
		left := s.left(r)
		if len(left) == 0 {
			return nil
		}
		s.o.Log.InfoContext(ctx, "a sidecar was left", logattr.PID(left[0]))
		for _, pid := range left {
			if pid == r.PID {
				_ = syscall.Kill(-pid, syscall.SIGKILL) // it may have just ended, as below
			}
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		t := time.NewTimer(recheck)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		}
	}
}

// left returns the processes of a record that live.
func (s *Supervisor) left(r record) []int {
	left := marked(r.Mark)
	if start, err := startOf(r.PID); err == nil && start == r.Start {
		left = append(left, r.PID)
	}
	return left
}
