//go:build unix

package setup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lockPoll is how often a lock is tried again. The kernel tells nobody when a lock
// is free, but to a caller that blocks and cannot be called back.
const lockPoll = 200 * time.Millisecond

// lockFile locks f until it is closed, also by the end of the process. It calls
// waiting once if somebody else has the lock.
func lockFile(ctx context.Context, f *os.File, waiting func()) error {
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for first := true; ; first = false {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		if first {
			waiting()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
