package netstack

import (
	"container/list"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	minPin      = time.Minute // a program may use an answer a little longer than it is valid
	maxPin      = time.Hour   // longer TTLs are cut to this on their way to the guest
	namesPerPin = 8           // of one address, the newest
)

// pins remembers which names an address was the answer for. It keeps the newest of
// a bounded number.
type pins struct {
	limit int

	mu    sync.Mutex
	byIP  map[netip.Addr]*list.Element // of *pin
	order list.List                    // oldest first
}

type pin struct {
	addr  netip.Addr
	names []pinned // oldest first
}

type pinned struct {
	name  string
	until time.Time
}

func newPins(limit int) *pins {
	return &pins{limit: limit, byIP: make(map[netip.Addr]*list.Element)}
}

// add notes that name has the address addr for ttl.
func (p *pins) add(addr netip.Addr, name string, ttl time.Duration) {
	until := time.Now().Add(min(max(ttl, minPin), maxPin))
	p.mu.Lock()
	defer p.mu.Unlock()
	e, ok := p.byIP[addr]
	if !ok {
		e = p.order.PushBack(&pin{addr: addr})
		p.byIP[addr] = e
		if p.order.Len() > p.limit {
			oldest := p.order.Front()
			delete(p.byIP, oldest.Value.(*pin).addr) //nolint:forcetypeassert // the list has no others
			p.order.Remove(oldest)
		}
	}
	p.order.MoveToBack(e)
	x := e.Value.(*pin) //nolint:forcetypeassert // the list has no others
	x.names = slices.DeleteFunc(x.names, func(n pinned) bool { return n.name == name })
	x.names = append(x.names, pinned{name, until})
	if len(x.names) > namesPerPin {
		x.names = slices.Delete(x.names, 0, 1)
	}
}

// names returns the names that addr has now, the newest last.
func (p *pins) names(addr netip.Addr) []string {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	e, ok := p.byIP[addr]
	if !ok {
		return nil
	}
	var names []string
	for _, n := range e.Value.(*pin).names { //nolint:forcetypeassert // the list has no others
		if now.Before(n.until) {
			names = append(names, n.name)
		}
	}
	return names
}
