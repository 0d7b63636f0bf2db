package netstack

import (
	"context"
	"errors"
	"net"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// Dial connects to a port of the guest. The connection has CloseWrite, and errors as
// the kernel's have: a port on which nothing listens is syscall.ECONNREFUSED. While no
// guest is attached, or the guest is paused, Dial waits for it; ctx ends the wait,
// with its cause.
func (n *Network) Dial(ctx context.Context, port uint16) (net.Conn, error) {
	dst := netip.AddrPortFrom(Guest, port)
	f, err := n.flows.begin(inward, n.limits.Inbound, dst, nil)
	if errors.Is(err, errFull) {
		return nil, fault.New(fault.Exhausted, "there are %d connections into the VM", n.limits.Inbound).By(fault.Host)
	}
	if err != nil {
		return nil, err
	}
	c, err := n.connect(ctx, f, port)
	if err != nil {
		n.flows.done(f)
		return nil, err
	}
	f.carry(c)
	return c, nil
}

// connect makes the connection of f.
func (n *Network) connect(ctx context.Context, f *flow, port uint16) (*conn, error) {
	select {
	case <-n.nic.attached():
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-f.ctx.Done():
		return nil, f.cause()
	}
	wq := new(waiter.Queue)
	ep, err := n.stack.NewEndpoint(tcp.ProtocolNumber, ipv4.ProtocolNumber, wq)
	if err != nil {
		return nil, opError("dial", err)
	}
	entry, connected := waiter.NewChannelEntry(waiter.WritableEvents)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)
	err = ep.Connect(tcpip.FullAddress{NIC: nicID, Addr: guestAddr, Port: port})
	if _, started := err.(*tcpip.ErrConnectStarted); started {
		select {
		case <-connected:
			err = ep.LastError()
		case <-ctx.Done():
			ep.Close()
			return nil, context.Cause(ctx)
		case <-f.ctx.Done():
			ep.Close()
			return nil, f.cause()
		}
	}
	if err != nil {
		ep.Close()
		return nil, opError("dial", err)
	}
	return n.newConn(wq, ep, func() { n.flows.done(f) }), nil
}
