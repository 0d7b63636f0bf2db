package guestapi

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/logattr"
)

// The limits of one instance.
const (
	ratePerSecond = 500
	rateBurst     = 1000
	// penalty is what a request over the rate waits for its refusal. With the connections
	// that an instance has it bounds what refusals cost the host.
	penalty = 50 * time.Millisecond
	// maxHeavy is how many children are made, forks taken, commands run and followers served
	// together, maxChats how many answers of models.
	maxHeavy = 8
	maxChats = 4
	// refusals of an instance that are logged; what is over it is counted.
	refusalsPerSecond = 1
	refusalsBurst     = 20
)

// peer is an instance that asks, over all of its connections.
type peer struct {
	id       instance.ID
	requests *rate.Limiter
	logged   *rate.Limiter
	heavy    chan struct{}
	chats    chan struct{}
	keeping  chan struct{} // taken while a snapshot is made: they are counted

	conns int // guarded by Server.mu

	mu      sync.Mutex
	dropped int // refusals that were not logged
}

// maxPeers is how many instances are known before those that have long been silent are
// forgotten.
const maxPeers = 1024

// peer returns the peer of an instance. The caller releases it.
func (s *Server) peer(id instance.ID) *peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.peers[id]
	if p == nil {
		if len(s.peers) >= maxPeers {
			s.forget()
		}
		p = &peer{
			id:       id,
			requests: rate.NewLimiter(ratePerSecond, rateBurst),
			logged:   rate.NewLimiter(refusalsPerSecond, refusalsBurst),
			heavy:    make(chan struct{}, maxHeavy),
			chats:    make(chan struct{}, maxChats),
			keeping:  make(chan struct{}, 1),
		}
		s.peers[id] = p
	}
	p.conns++
	return p
}

// release does not forget the peer: a guest would have new limits with every connection.
func (s *Server) release(p *peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.conns--
}

// forget removes peers that would be made anew as they are. The caller holds mu.
func (s *Server) forget() {
	for id, p := range s.peers {
		if p.conns == 0 && p.requests.Tokens() >= rateBurst && p.logged.Tokens() >= refusalsBurst {
			delete(s.peers, id)
		}
	}
}

// admit refuses a request that comes too soon, after a while.
func (p *peer) admit(ctx context.Context) error {
	if p.requests.Allow() {
		return nil
	}
	timer := time.NewTimer(penalty)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return tooMany("more than %d requests a second", ratePerSecond)
}

// take takes a place for something that is costly, until done is called.
func take(places chan struct{}, what string) (done func(), err error) {
	select {
	case places <- struct{}{}:
		return func() { <-places }, nil
	default:
		return nil, tooMany("%d %s are under way already", cap(places), what)
	}
}

// tooManyError is a request that may succeed later.
type tooManyError struct{ err *fault.Error }

// Error implements error.
func (e tooManyError) Error() string { return e.err.Error() }

// Unwrap makes it a fault.Error.
func (e tooManyError) Unwrap() error { return e.err }

func tooMany(format string, args ...any) error {
	return tooManyError{fault.New(fault.Unavailable, format, args...).WithHint("try again in a second")}
}

// refused logs a request that was refused, as often as that is of use to anybody.
func (p *peer) refused(log *slog.Logger, method, path string, err error) {
	if !p.logged.Allow() {
		p.mu.Lock()
		p.dropped++
		p.mu.Unlock()
		return
	}
	p.mu.Lock()
	more := p.dropped
	p.dropped = 0
	p.mu.Unlock()
	log.Warn("guest refused", logattr.Instance(p.id), logattr.Request(method, path), logattr.Err(err), slog.Int("not_logged", more))
}
