package netstack

import (
	"context"
	"net"
	"net/netip"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// backlog is how many connections of the guest wait for Accept.
const backlog = 64

// listener is a port of the gateway.
type listener struct {
	n    *Network
	addr netip.AddrPort
	wq   *waiter.Queue
	ep   tcpip.Endpoint

	closing sync.Once
}

// Listen opens a port of the gateway to the guest. Its connections are not counted
// as traffic. What the guest has open beyond Limits.Connections is reset.
func (n *Network) Listen(port uint16) (net.Listener, error) {
	if n.ctx.Err() != nil {
		return nil, context.Cause(n.ctx)
	}
	wq := new(waiter.Queue)
	ep, err := n.stack.NewEndpoint(tcp.ProtocolNumber, ipv4.ProtocolNumber, wq)
	if err != nil {
		return nil, opError("listen", err)
	}
	err = firstError(
		func() tcpip.Error { return ep.Bind(tcpip.FullAddress{NIC: nicID, Addr: gatewayAddr, Port: port}) },
		func() tcpip.Error { return ep.Listen(backlog) },
	)
	if err != nil {
		ep.Close()
		return nil, opError("listen", err)
	}
	l := &listener{n: n, addr: netip.AddrPortFrom(Gateway, port), wq: wq, ep: ep}
	n.traffic.setOwn(port, true)
	return l, nil
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	entry, readable := waiter.NewChannelEntry(waiter.ReadableEvents)
	l.wq.EventRegister(&entry)
	defer l.wq.EventUnregister(&entry)
	for {
		ep, wq, err := l.ep.Accept(nil)
		if _, none := err.(*tcpip.ErrWouldBlock); none {
			select {
			case <-readable:
				continue
			case <-l.n.ctx.Done():
				return nil, l.closed()
			}
		}
		if err != nil {
			return nil, l.closed()
		}
		f, full := l.n.flows.begin(served, l.n.limits.Connections, l.addr, nil)
		if full != nil {
			ep.Abort()
			ep.Close()
			continue
		}
		c := l.n.newConn(wq, ep, func() { l.n.flows.done(f) })
		f.carry(c)
		return c, nil
	}
}

func (l *listener) closed() error {
	return &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
}

// Close implements net.Listener. Connections that were accepted stay.
func (l *listener) Close() error {
	l.closing.Do(func() {
		l.n.traffic.setOwn(l.addr.Port(), false)
		l.ep.Close()
	})
	return nil
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }
