package image

import "sync"

// pins keeps what somebody is at work with from being removed. Keys are digests of
// images, roots and layers.
type pins struct {
	mu    sync.Mutex
	held  map[string]int
	going map[string]chan struct{} // being removed; closed when it is
}

func newPins() *pins { return &pins{held: map[string]int{}, going: map[string]chan struct{}{}} }

// pin holds something, whether or not it exists. What is being removed is waited for.
// The function that it returns lets go; it may be called again.
func (p *pins) pin(key string) (release func()) {
	for {
		p.mu.Lock()
		gone := p.going[key]
		if gone == nil {
			p.held[key]++
			p.mu.Unlock()
			return sync.OnceFunc(func() {
				p.mu.Lock()
				defer p.mu.Unlock()
				if p.held[key]--; p.held[key] == 0 {
					delete(p.held, key)
				}
			})
		}
		p.mu.Unlock()
		<-gone // a removal is short
	}
}

// claim takes what nobody holds for removal, until the function it returns is called.
func (p *pins) claim(key string) (done func(), ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held[key] > 0 || p.going[key] != nil {
		return nil, false
	}
	gone := make(chan struct{})
	p.going[key] = gone
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.going, key)
		close(gone)
	}, true
}
