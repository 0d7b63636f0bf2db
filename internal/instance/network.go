package instance

import (
	"context"
	"fmt"
	"net"
)

// Networks makes the host's ends of VMs' networks. Package netstack implements it.
type Networks interface {
	// Open makes the network of one machine. tell is called with lines for the
	// instance's log, such as what the guest was denied; it may take its time.
	Open(id ID, spec Spec, tell func(line string)) (Network, error)
}

// Network is the host's end of one machine's network.
type Network interface {
	// Attach joins the network card of a machine: conn is what its AttachNetwork
	// returned, and belongs to the Network from here on.
	Attach(conn net.Conn)

	// Dial connects to a port of the guest. An error is a syscall.ECONNREFUSED when
	// nothing listens there. The connection has CloseWrite, and its Close waits for
	// nobody. It may have Abort() too, which is a Close that the program in the guest
	// sees as a reset.
	Dial(ctx context.Context, port uint16) (net.Conn, error)

	// Listen listens on a port of the gateway, for the guest.
	Listen(port uint16) (net.Listener, error)

	// Close ends the network with all its connections, and waits for what it started.
	// A Dial after it fails.
	Close() error
}

// plug gives a machine its network. It ends with the machine.
func (a *actor) plug(ctx context.Context, l *live) error {
	if a.world.Networks == nil {
		return nil
	}
	n, err := a.world.Networks.Open(a.id, a.spec, func(line string) { a.remark("%s", line) })
	if err != nil {
		return fmt.Errorf("network of %s: %w", a.id, err)
	}
	l.network = n
	a.ops.Go(func() {
		select {
		case <-l.gone:
		case <-a.left:
		}
		_ = n.Close() // its connections end with the machine anyway
	})
	conn, err := l.machine.AttachNetwork(ctx)
	if err != nil {
		return fmt.Errorf("network of %s: %w", a.id, err)
	}
	n.Attach(conn)
	return nil
}
