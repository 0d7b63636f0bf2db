package netstack

import (
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Denial tells of something that the guest was refused.
type Denial struct {
	Protocol string     // "tcp", "udp", "icmp", "ip", or "dns" for a question
	Addr     netip.Addr // the destination; not valid for a question that was not answered
	Port     uint16     // 0 where the protocol has none
	Name     string     // the name asked for, or one that Addr was the answer for; or ""
	Reason   string
	Allow    string // the options that would allow it, or ""
}

// String returns the line for the instance's log.
func (d Denial) String() string {
	var b strings.Builder
	b.WriteString("egress denied: " + d.Protocol + " ")
	switch {
	case !d.Addr.IsValid():
		b.WriteString(d.Name)
	case d.Port != 0:
		b.WriteString(netip.AddrPortFrom(d.Addr, d.Port).String())
	default:
		b.WriteString(d.Addr.String())
	}
	if d.Addr.IsValid() && d.Name != "" {
		b.WriteString(" (" + d.Name + ")")
	}
	b.WriteString(": " + d.Reason)
	if d.Allow != "" {
		b.WriteString("; " + d.Allow + " allows it")
	}
	return b.String()
}

// key is what two denials have in common that are the same to a reader.
func (d Denial) key() string {
	if !d.Addr.IsValid() {
		return d.Protocol + " " + d.Name
	}
	return d.Protocol + " " + d.Addr.String() + " " + strconv.Itoa(int(d.Port)) + " " + d.Name
}

const (
	denialAgain = time.Minute // after this the same denial is told again
	maxDenials  = 1024        // remembered
	denialQueue = 64          // on their way to Config.Denied
)

// denials tells of refusals without repeating itself.
type denials struct {
	told chan Denial
	rate *rate.Limiter

	mu   sync.Mutex
	seen map[string]time.Time
}

func newDenials(perSecond int) *denials {
	return &denials{
		told: make(chan Denial, denialQueue),
		rate: rate.NewLimiter(rate.Limit(perSecond), 5*perSecond),
		seen: make(map[string]time.Time),
	}
}

// fresh reports whether d is worth telling.
func (s *denials) fresh(d Denial) bool {
	key, now := d.key(), time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, ok := s.seen[key]; ok && now.Sub(at) < denialAgain {
		return false
	}
	if !s.rate.AllowN(now, 1) {
		return false
	}
	if len(s.seen) >= maxDenials {
		for k, at := range s.seen {
			if now.Sub(at) >= denialAgain {
				delete(s.seen, k)
			}
		}
	}
	if len(s.seen) >= maxDenials {
		clear(s.seen)
	}
	s.seen[key] = now
	return true
}

// deny counts a denial, and tells of it if it is new. It does not wait.
func (n *Network) deny(d Denial) {
	n.traffic.denied.Add(1)
	if n.denied == nil || !n.denials.fresh(d) {
		return
	}
	select {
	case n.denials.told <- d:
	default: // whoever is told is slow; the count is right
	}
}

// tell hands denials on until the network ends.
func (n *Network) tell() {
	for {
		select {
		case d := <-n.denials.told:
			n.denied(d)
		case <-n.ctx.Done():
			return
		}
	}
}
