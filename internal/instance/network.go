package instance

import (
	"context"
	"fmt"
	"net"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// Networks makes the host's ends of VMs' networks. Package netstack implements it.
type Networks interface {
	// Check says what is wrong with e.
	Check(e Egress) error

	// Open makes the network of one machine. denied is called with what the guest was
	// refused; it may take its time.
	Open(id ID, spec Spec, denied func(Denial)) (Network, error)
}

// Egress says what a guest may reach outside of its own network.
type Egress struct {
	Mode  string   // "none", "public" or "all"; "" is "none" if something is allowed by name, else "public"
	Allow []string `json:",omitempty"` // names, addresses and prefixes, with a port or without
}

// MaxAllow bounds the rules of an Egress.
const MaxAllow = 256

// checkEgress says what is wrong with what a guest is to reach.
func (w *World) checkEgress(e Egress) error {
	if len(e.Allow) > MaxAllow {
		return fault.New(fault.Invalid, "%d rules of egress are too many; there may be %d", len(e.Allow), MaxAllow)
	}
	if w.Networks == nil {
		return nil
	}
	return w.Networks.Check(e)
}

// Network is the host's end of one machine's network.
type Network interface {
	// Attach joins the network card of a machine: conn is what its AttachNetwork
	// returned, and belongs to the Network from here on.
	Attach(conn net.Conn)

	// Dial connects to a port of the guest. An error is a syscall.ECONNREFUSED when
	// nothing listens there. The connection has CloseWrite, and its Close waits for
	// nobody. It may have Abort() too, which is a Close that the program in the guest
	// sees as a reset, and Gone() as GuestConn has.
	Dial(ctx context.Context, port uint16) (net.Conn, error)

	// Listen listens on a port of the gateway, for the guest.
	Listen(port uint16) (net.Listener, error)

	// Crossed is how many bytes have crossed the machine's network card, but for what it
	// has with the gateway itself: the workspace, DNS.
	Crossed() uint64

	// Traffic is what has crossed it, and what was refused.
	Traffic() Traffic

	// SetEgress changes what the guest may reach, to what Networks.Check allows. Connections
	// that it may not have any more are cut.
	SetEgress(e Egress)

	// Close ends the network with all its connections, and waits for what it started.
	// A Dial after it fails.
	Close() error
}

// plug gives the run's machine its network, which ends with the machine.
func (a *actor) plug(ctx context.Context, l *live) error {
	if a.world.Networks == nil {
		return nil
	}
	spec := a.spec
	spec.Egress = a.view.Load().Spec.Egress
	n, err := a.world.Networks.Open(a.id, spec, a.denied)
	if err != nil {
		return fmt.Errorf("network of %s: %w", a.id, err)
	}
	b := l.current()
	l.equip(b, n)
	a.ledger.opened(n)
	n.SetEgress(a.view.Load().Spec.Egress) // it may have changed before the actor could see n
	a.ops.Go(func() {
		l.unfurnished(a.outlast(l, b))
		a.ledger.closed(n)
		_ = n.Close() // its connections end with the machine anyway
	})
	conn, err := b.machine.AttachNetwork(ctx)
	if err != nil {
		return fmt.Errorf("network of %s: %w", a.id, err)
	}
	n.Attach(conn)
	return nil
}

// equip gives a machine of the run its network.
func (l *live) equip(b *body, n Network) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b.network = n
}

// network returns the network of the run's machine.
func (l *live) network() (Network, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.body == nil:
		return nil, ErrSuperseded // it was put to sleep
	case l.body.network == nil:
		return nil, errNoNetwork
	}
	return l.body.network, nil
}

var errNoNetwork = fault.New(fault.Unavailable, "the VM has no network")

// denied tells of something that the guest was refused.
func (a *actor) denied(d Denial) {
	a.ledger.deny(d)
	a.remark("%s", d.Text)
}
