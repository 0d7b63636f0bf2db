//go:build linux

package pid1

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// cold says whether programs are frozen, and for whom: for the host, which is about to
// pause the machine, or for those who read what has changed on the disk.
type cold struct {
	mu      sync.Mutex // held while programs are frozen, let go or started
	held    bool       // by the host
	reading int
	thawed  uint64        // how often the host let them go
	warm    chan struct{} // closed when they are let go; nil while they are not frozen
}

// start calls fork while programs run, and waits for that. A child that is frozen between
// fork and exec would hold the thread that made it in the kernel, and the Go runtime with
// it: nobody were left to let it go.
func (c *cold) start(fork func()) {
	c.mu.Lock()
	for c.warm != nil {
		warm := c.warm
		c.mu.Unlock()
		<-warm
		c.mu.Lock()
	}
	defer c.mu.Unlock()
	fork()
}

// stop freezes programs. The caller holds mu.
func (c *cold) stop() error {
	if err := freezeCgroup(true); err != nil {
		return fmt.Errorf("stop the programs: %w", err)
	}
	if c.warm == nil {
		c.warm = make(chan struct{})
	}
	return nil
}

// letGo lets programs run, if nobody wants them to stand still. The caller holds mu.
func (c *cold) letGo() error {
	if c.warm == nil || c.held || c.reading > 0 {
		return nil
	}
	if err := freezeCgroup(false); err != nil {
		return fmt.Errorf("let the programs go: %w", err)
	}
	close(c.warm)
	c.warm = nil
	return nil
}

// hold freezes programs for the host, unless it has let them go since before.
func (c *cold) hold(before uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.thawed != before {
		return &guestproto.Error{Code: guestproto.CodeUnavailable, Msg: "the programs were let go meanwhile"}
	}
	if err := c.stop(); err != nil {
		return err
	}
	c.held = true
	return nil
}

// thaw lets go what hold stopped.
func (c *cold) thaw() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.thawed++
	c.held = false
	return c.letGo()
}

func (c *cold) thaws() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.thawed
}

// read freezes programs for one who reads what they have written. The returned function
// ends that.
func (c *cold) read() (done func() error, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.stop(); err != nil {
		return nil, err
	}
	c.reading++
	return func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.reading--
		return c.letGo()
	}, nil
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
	if err := m.cold.hold(before); err != nil {
		return nil, err
	}
	return awaitFrozen(deadline)
}
