package ram

import (
	"errors"
	"os"
	"sync"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// Custody says who may use a vmm.Memory and for what: the rules of its manual. The
// zero value is a memory that a machine holds. Its methods may be called together.
type Custody struct {
	mu    sync.Mutex
	state state
}

type state int

const (
	held    state = iota // a machine that is paused is mapped to it
	free                 // nobody writes to it
	sealed               // nobody ever writes to it again
	spoiled              // the machine has gone on
	closed
)

var errSpoiled = errors.New("the machine has run on since its memory was saved")

// Check returns why the memory can no longer be used, or nil.
func (c *Custody) Check() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.check()
}

func (c *Custody) check() error {
	switch c.state {
	case spoiled:
		return fault.Wrap(fault.Conflict, errSpoiled, "saved memory")
	case closed:
		return fault.Wrap(fault.Conflict, os.ErrClosed, "saved memory")
	case held, free, sealed:
	}
	return nil
}

// Held reports whether a machine may write to the memory: one that is paused, and holds it.
func (c *Custody) Held() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state == held
}

// Share lets copy-on-write clones start from the memory; seal is called before the
// first, and must not block.
func (c *Custody) Share(seal func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.check(); err != nil {
		return err
	}
	if c.state == held {
		return fault.New(fault.Conflict, "the machine whose memory it is still exists")
	}
	if c.state == free {
		if err := seal(); err != nil {
			return err
		}
		c.state = sealed
	}
	return nil
}

// Take gives the memory to a machine for its own.
func (c *Custody) Take() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.check(); err != nil {
		return err
	}
	if c.state != free {
		return fault.New(fault.Conflict, "other machines use the memory")
	}
	c.state = held
	return nil
}

// Free says that the machine that held the memory has ended.
func (c *Custody) Free() { c.leave(free) }

// Spoil says that the machine that held the memory goes on.
func (c *Custody) Spoil() { c.leave(spoiled) }

func (c *Custody) leave(to state) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == held {
		c.state = to
	}
}

// Close ends all use of the memory by this process. It reports whether it is the
// first.
func (c *Custody) Close() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := c.state != closed
	c.state = closed
	return first
}
