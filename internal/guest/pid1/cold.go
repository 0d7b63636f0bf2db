//go:build linux

package pid1

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// cold says whether programs are frozen.
type cold struct {
	mu     sync.Mutex    // held while they are frozen, let go or started
	frozen bool          // they are, or may be
	thawed uint64        // how often they were let go
	warm   chan struct{} // closed when they are let go; nil while they are not frozen
}

// start calls fork while programs run, and waits for that. A child that is frozen between
// fork and exec would hold the thread that made it in the kernel, and the Go runtime with
// it: nobody were left to let it go.
func (c *cold) start(fork func()) {
	c.mu.Lock()
	for c.frozen {
		warm := c.warm
		c.mu.Unlock()
		<-warm
		c.mu.Lock()
	}
	defer c.mu.Unlock()
	fork()
}

// freeze stops programs, unless they were let go since before.
func (c *cold) freeze(before uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.thawed != before {
		return &guestproto.Error{Code: guestproto.CodeUnavailable, Msg: "the programs were let go meanwhile"}
	}
	if !c.frozen {
		c.frozen, c.warm = true, make(chan struct{})
	}
	if err := freezeCgroup(true); err != nil {
		return fmt.Errorf("freeze: %w", err)
	}
	return nil
}

// thaw lets programs go.
func (c *cold) thaw() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.thawed++
	if !c.frozen {
		return nil
	}
	if err := freezeCgroup(false); err != nil {
		return err
	}
	c.frozen = false
	close(c.warm)
	return nil
}

func (c *cold) thaws() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.thawed
}

// Thaw implements server.System.
func (m *machine) Thaw(thaw guestproto.Thaw) error {
	if err := reseed(thaw.Entropy); err != nil {
		return err
	}
	if err := setClock(time.Unix(0, thaw.UnixNano)); err != nil {
		return err
	}
	return m.cold.thaw()
}

// Freeze implements server.System.
func (m *machine) Freeze(deadline time.Duration) ([]string, error) {
	before := m.cold.thaws()
	unix.Sync()
	// The machine may have been paused in the middle of writing, and be wanted again.
	if err := m.cold.freeze(before); err != nil {
		return nil, err
	}
	return awaitFrozen(deadline)
}
