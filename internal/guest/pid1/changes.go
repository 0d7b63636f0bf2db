//go:build linux

package pid1

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// stillFor bounds the wait for programs that are to stand still. What one does that does
// not stop is seen in the copy, or is not.
const stillFor = 2 * time.Second

// changes returns a path of the upper folder of the root's overlay, on which all that
// has changed is, and stops all programs until release is called.
func (m *machine) changes() (path string, release func(), err error) {
	// The disk is mounted where the switch of the root has hidden it.
	upper, err := unix.Openat(int(m.state.Fd()), "../upper", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, fmt.Errorf("open what has changed: %w", err)
	}
	done, err := m.cold.read()
	if err != nil {
		_ = unix.Close(upper) // the first error tells more
		return "", nil, err
	}
	release = sync.OnceFunc(func() {
		_ = unix.Close(upper) // only read
		if err := done(); err != nil {
			console("%v", err)
		}
	})
	if _, err := awaitFrozen(stillFor); err != nil {
		release()
		return "", nil, fmt.Errorf("stop the programs: %w", err)
	}
	return fmt.Sprintf("/proc/self/fd/%d", upper), release, nil
}
