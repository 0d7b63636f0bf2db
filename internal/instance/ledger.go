package instance

import (
	"slices"
	"sync"
	"time"
)

// Traffic is what an instance has had with the world over its network card, since the
// daemon began. What it has with the gateway itself (the workspace, DNS) is not counted,
// nor are connections to its loopback, which come over the link.
type Traffic struct {
	InBytes, OutBytes uint64 // to the guest, and from it
	Accepted, Opened  uint64 // connections to its ports, and to the outside, flows of UDP included
	Denied            uint64 // attempts that its policy refused
}

func (t Traffic) plus(o Traffic) Traffic {
	return Traffic{t.InBytes + o.InBytes, t.OutBytes + o.OutBytes, t.Accepted + o.Accepted, t.Opened + o.Opened, t.Denied + o.Denied}
}

// Denial is something that a guest was refused.
type Denial struct {
	Time  time.Time
	Text  string // for people
	Allow string // the options that would allow it, or ""
}

// maxDenials is how many denials are remembered of an instance.
const maxDenials = 8

// ledger counts what an instance's networks carry, those of its past machines too.
type ledger struct {
	mu     sync.Mutex
	past   Traffic
	open   map[Network]bool
	denied []Denial // oldest first, each once
}

func (l *ledger) opened(n Network) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == nil {
		l.open = map[Network]bool{}
	}
	l.open[n] = true
}

// closed keeps what a network has carried that is about to be closed.
func (l *ledger) closed(n Network) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, n)
	l.past = l.past.plus(n.Traffic())
}

func (l *ledger) traffic() Traffic {
	l.mu.Lock()
	defer l.mu.Unlock()
	sum := l.past
	for n := range l.open {
		sum = sum.plus(n.Traffic())
	}
	return sum
}

func (l *ledger) deny(d Denial) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.denied = slices.DeleteFunc(l.denied, func(old Denial) bool { return old.Text == d.Text })
	l.denied = append(l.denied, d)
	if len(l.denied) > maxDenials {
		l.denied = slices.Delete(l.denied, 0, 1)
	}
}

func (l *ledger) denials() []Denial {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.denied)
}
