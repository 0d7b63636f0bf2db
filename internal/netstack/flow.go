package netstack

import (
	"context"
	"errors"
	"net/netip"
	"sync"
)

// kind is what a flow counts as.
type kind int

const (
	outward   kind = iota // TCP from the guest to the outside
	datagrams             // UDP from the guest to the outside
	inward                // TCP that Dial made
	served                // TCP from the guest to a listener of the gateway
	kinds
)

func (k kind) protocol() string {
	if k == datagrams {
		return "udp"
	}
	return "tcp"
}

// errFull is why a flow was not begun.
var errFull = errors.New("the guest has too many connections")

// flow is one connection of the guest, from before it is made until nothing is left
// of it.
type flow struct {
	kind  kind
	dst   netip.AddrPort
	names []string // that dst had when the flow was allowed

	ctx    context.Context //nolint:containedctx // the life of the flow
	cancel context.CancelCauseFunc

	mu   sync.Mutex
	conn *conn // the guest's end, once it is there
}

// cause returns why the flow has ended.
func (f *flow) cause() error { return context.Cause(f.ctx) }

// carry makes c the guest's end of the flow.
func (f *flow) carry(c *conn) {
	f.mu.Lock()
	f.conn = c
	f.mu.Unlock()
	if f.ctx.Err() != nil {
		c.Abort()
	}
}

// end resets the flow, which is done some time after.
func (f *flow) end(cause error) {
	f.cancel(cause)
	f.mu.Lock()
	c := f.conn
	f.mu.Unlock()
	if c != nil {
		c.Abort()
	}
}

// flows is all there are.
type flows struct {
	ctx context.Context //nolint:containedctx // of the network

	mu     sync.Mutex
	empty  sync.Cond // the last has ended
	all    map[*flow]struct{}
	counts [kinds]int
	ever   [kinds]uint64
	closed error
}

func newFlows(ctx context.Context) *flows {
	s := &flows{ctx: ctx, all: make(map[*flow]struct{})}
	s.empty.L = &s.mu
	return s
}

// begin adds a flow, unless there are limit of its kind. The caller gives it back
// with done.
func (s *flows) begin(k kind, limit int, dst netip.AddrPort, names []string) (*flow, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed != nil {
		return nil, s.closed
	}
	if s.counts[k] >= limit {
		return nil, errFull
	}
	f := &flow{kind: k, dst: dst, names: names}
	f.ctx, f.cancel = context.WithCancelCause(s.ctx)
	s.all[f] = struct{}{}
	s.counts[k]++
	s.ever[k]++
	return f, nil
}

// done removes a flow of which nothing is left. It is idempotent.
func (s *flows) done(f *flow) {
	f.cancel(context.Canceled)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.all[f]; !ok {
		return
	}
	delete(s.all, f)
	if s.counts[f.kind]--; len(s.all) == 0 {
		s.empty.Broadcast()
	}
}

// end resets the flows that why returns a cause for.
func (s *flows) end(why func(*flow) error) {
	s.mu.Lock()
	all := make([]*flow, 0, len(s.all))
	for f := range s.all {
		all = append(all, f)
	}
	s.mu.Unlock()
	for _, f := range all {
		if err := why(f); err != nil {
			f.end(err)
		}
	}
}

// close ends all flows, refuses others, and waits until there are none.
func (s *flows) close(cause error) {
	s.mu.Lock()
	s.closed = cause
	s.mu.Unlock()
	s.end(func(*flow) error { return cause })
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.all) > 0 {
		s.empty.Wait()
	}
}

func (s *flows) count(k kind) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[k]
}

// begun returns how many flows of a kind there have ever been.
func (s *flows) begun(k kind) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ever[k]
}
