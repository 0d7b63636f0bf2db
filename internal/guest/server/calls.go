package server

import (
	"sync"

	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// remembered is how many answers are kept for requests that come again. The host
// repeats only what it has no answer to, and has fewer in flight than that.
const remembered = 1024

// calls runs each request once and keeps its answer.
type calls struct {
	running sync.WaitGroup

	mu    sync.Mutex
	byID  map[uint64]*call
	order []uint64
}

type call struct {
	done chan struct{}
	body any
	err  error
}

func newCalls() *calls { return &calls{byID: map[uint64]*call{}} }

// do returns the call of the request id, running it if it is new.
func (c *calls) do(id uint64, run func() (any, error)) *call {
	c.mu.Lock()
	defer c.mu.Unlock()
	if known, ok := c.byID[id]; ok {
		return known
	}
	if len(c.order) >= remembered {
		delete(c.byID, c.order[0])
		c.order = c.order[1:]
	}
	made := &call{done: make(chan struct{})}
	c.byID[id] = made
	c.order = append(c.order, id)
	c.running.Go(func() {
		defer close(made.done)
		made.body, made.err = run()
	})
	return made
}

func (c *calls) wait() { c.running.Wait() }

// answer returns the message that answers request m.
func (c *call) answer(m guestproto.Message, toError func(error) *guestproto.Error) guestproto.Message {
	reply, err := guestproto.NewMessage(m.ID, m.Type, c.body)
	if c.err != nil {
		err = c.err
	}
	if err != nil {
		return guestproto.Message{ID: m.ID, Type: m.Type, Error: toError(err)}
	}
	return reply
}
