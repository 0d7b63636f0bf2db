package netstack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"github.com/xfeldman/aegisvm/internal/vmm"
)

// The network of every VM. Package pid1 of the guest has the same.
var (
	Gateway = netip.MustParseAddr("192.168.127.1")
	Guest   = netip.MustParseAddr("192.168.127.2")

	subnet    = netip.MustParsePrefix("192.168.127.0/24")
	broadcast = netip.MustParseAddr("192.168.127.255")

	gatewayAddr = tcpip.AddrFrom4(Gateway.As4())
	guestAddr   = tcpip.AddrFrom4(Guest.As4())

	// Its addresses of IPv6 are unique local ones (RFC 4193): programs prefer IPv4 for names
	// that have both (RFC 6724).
	Gateway6 = netip.MustParseAddr("fd61:6567:6973::1")
	Guest6   = netip.MustParseAddr("fd61:6567:6973::2")

	subnet6 = netip.MustParsePrefix("fd61:6567:6973::/64")

	gatewayAddr6 = tcpip.AddrFrom16(Gateway6.As16())
	guestAddr6   = tcpip.AddrFrom16(Guest6.As16())
)

// MTU is the largest IP packet on the wire, in bytes. With it a TCP connection is
// half as fast again as with 1500, and more.
const MTU = 65520

// ErrClosed is what calls on a Network return after Close.
var ErrClosed = fmt.Errorf("the network of the VM was closed: %w", net.ErrClosed)

// errReset ends connections with the guest that had them.
var errReset = errors.New("the guest has been replaced")

// DialFunc connects to an address of the world, always a literal one.
type DialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// Config is what a Network is made of. Only Log is required.
type Config struct {
	Policy Policy

	// Denied is told of what the guest was refused, each destination at most once a
	// minute. Calls come one after the other; what comes while one takes long is lost.
	Denied func(Denial)

	// Dial reaches the outside, over "tcp" and "udp". nil is a net.Dialer. Where a
	// connection has CloseWrite, half-closes are passed on.
	Dial DialFunc

	// Resolver answers the guest's questions to the gateway. nil is HostResolver.
	Resolver Resolver

	// HostAddrs lists the addresses of the host itself. It is asked when there is
	// something to decide, at most once a second; while it fails everything is denied.
	// nil asks the kernel.
	HostAddrs func() ([]netip.Addr, error)

	// HostNets lists the prefixes of IPv6 on whose links the host is: neighbours with public
	// addresses are its own network all the same. It is asked as HostAddrs is. nil asks the
	// kernel.
	HostNets func() ([]netip.Prefix, error)

	// Routable reports whether this host could send to an address of IPv6 at all; answers
	// with others are dropped, or programs would try them first. nil asks the kernel.
	Routable func(netip.Addr) bool

	Limits Limits
	Log    *slog.Logger
}

// Network is the host's end of one VM's network. Its methods may be called together.
type Network struct {
	log      *slog.Logger
	limits   Limits
	dial     DialFunc
	resolver Resolver
	denied   func(Denial)
	routable func(netip.Addr) bool

	ctx    context.Context //nolint:containedctx // the life of the network; Close ends it
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup

	stack   *stack.Stack
	nic     *nic
	tcp     *tcp.Forwarder
	policy  atomic.Pointer[Policy]
	host    hostAddrs
	pins    *pins
	denials *denials
	flows   *flows
	udp     udpFlows
	names   *dnsServer
	traffic traffic

	attaching sync.Mutex // held while attachments are exchanged
	serving   *attachment
	closing   sync.Once
}

// New makes a network that no guest is attached to yet.
func New(c Config) (*Network, error) {
	if err := c.Policy.check(); err != nil {
		return nil, err
	}
	limits := c.Limits.Complete()
	n := &Network{
		log: c.Log, limits: limits, dial: c.Dial, resolver: c.Resolver, denied: c.Denied,
		pins: newPins(limits.Pins), denials: newDenials(limits.Denials),
		host: hostAddrs{list: c.HostAddrs, nets: c.HostNets}, routable: c.Routable,
	}
	if n.dial == nil {
		n.dial = new(net.Dialer).DialContext
	}
	if n.resolver == nil {
		n.resolver = HostResolver()
	}
	if n.host.list == nil {
		n.host.list = interfaceAddrs
	}
	if n.host.nets == nil {
		n.host.nets = interfaceNets
	}
	if n.routable == nil {
		n.routable = hasRoute
	}
	n.policy.Store(c.Policy.clone())
	n.ctx, n.cancel = context.WithCancelCause(context.Background())
	n.flows = newFlows(n.ctx)
	n.nic = newNIC(&n.traffic, tcpip.LinkAddress(vmm.CardAddress[:]))
	if err := n.build(); err != nil {
		n.cancel(err)
		n.stack.Destroy()
		return nil, err
	}
	n.wg.Go(n.tell)
	if err := n.serveDNS(); err != nil {
		_ = n.Close() // never fails
		return nil, fmt.Errorf("serve names: %w", err)
	}
	return n, nil
}

// build makes the stack. Its card takes packets for every address, and sends from
// every address: to the guest this host is the world.
func (n *Network) build() error {
	n.stack = stack.New(stack.Options{
		// What a guest sends to loopback is refused like anything else, not swallowed.
		NetworkProtocols: []stack.NetworkProtocolFactory{
			ipv4.NewProtocolWithOptions(ipv4.Options{AllowExternalLoopbackTraffic: true}),
			ipv6.NewProtocolWithOptions(ipv6.Options{AllowExternalLoopbackTraffic: true}), // without MLD, DAD and routers
		},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
	})
	err := firstError(
		func() tcpip.Error { return tune(n.stack, n.limits) },
		func() tcpip.Error { return n.stack.CreateNIC(nicID, n.nic) },
		func() tcpip.Error { return n.addAddress(ipv4.ProtocolNumber, gatewayAddr, subnet.Bits()) },
		func() tcpip.Error { return n.addAddress(ipv6.ProtocolNumber, gatewayAddr6, subnet6.Bits()) },
		func() tcpip.Error { return n.stack.SetPromiscuousMode(nicID, true) },
		func() tcpip.Error { return n.stack.SetSpoofing(nicID, true) },
	)
	if err != nil {
		return fmt.Errorf("make a network stack: %s", err)
	}
	n.stack.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: nicID}, {Destination: header.IPv6EmptySubnet, NIC: nicID}})
	n.tcp = tcp.NewForwarder(n.stack, tcpBufferMin, n.limits.Opening, n.forward)
	n.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, n.handleTCP)
	n.stack.SetTransportProtocolHandler(udp.ProtocolNumber, n.handleUDP)
	return nil
}

func (n *Network) addAddress(protocol tcpip.NetworkProtocolNumber, addr tcpip.Address, bits int) tcpip.Error {
	return n.stack.AddProtocolAddress(nicID, tcpip.ProtocolAddress{
		Protocol: protocol, AddressWithPrefix: tcpip.AddressWithPrefix{Address: addr, PrefixLen: bits},
	}, stack.AddressProperties{})
}

func firstError(steps ...func() tcpip.Error) tcpip.Error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// SetPolicy replaces the policy. Connections that it does not allow end.
func (n *Network) SetPolicy(p Policy) error {
	if err := p.check(); err != nil {
		return err
	}
	n.policy.Store(p.clone())
	n.flows.end(func(f *flow) error {
		if f.kind == inward {
			return nil
		}
		if d, ok := n.judge(f.dst, f.names); !ok {
			d.Protocol = f.kind.protocol()
			n.deny(d)
			return errors.New(d.Reason)
		}
		return nil
	})
	return nil
}

// CloseInbound ends the connections that Dial made.
func (n *Network) CloseInbound() {
	n.flows.end(func(f *flow) error {
		if f.kind == inward {
			return errReset
		}
		return nil
	})
}

// Reset ends all connections but keeps listeners: for a guest that knows nothing of
// those there were, because it boots.
func (n *Network) Reset() {
	n.flows.end(func(*flow) error { return errReset })
}

// Close ends everything, and waits for what the network has started.
func (n *Network) Close() error {
	n.closing.Do(func() {
		n.cancel(ErrClosed)
		n.Detach()
		n.flows.close(ErrClosed)
		if n.names != nil {
			n.names.close()
		}
		n.wg.Wait()
		n.stack.Destroy()
	})
	return nil
}
