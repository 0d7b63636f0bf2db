package netstack

import (
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// nicID is the only card of a stack.
const nicID tcpip.NICID = 1

// gatewayMAC is the hardware address of the gateway.
var gatewayMAC = tcpip.LinkAddress("\x02\x61\x65\x67\x69\x01")

// nic is the stack's side of the wire: a stack.LinkEndpoint that speaks Ethernet
// with exactly one neighbour. It resolves no addresses, so no packet ever waits for
// ARP.
type nic struct {
	traffic *traffic
	current atomic.Pointer[attachment] // nil while no guest is attached
	guest   atomic.Pointer[tcpip.LinkAddress]

	mu         sync.Mutex
	dispatcher stack.NetworkDispatcher
	plugged    chan struct{} // closed while a guest is attached, else open
}

func newNIC(t *traffic, guest tcpip.LinkAddress) *nic {
	c := &nic{traffic: t, plugged: make(chan struct{})}
	c.guest.Store(&guest)
	return c
}

func (c *nic) plug(a *attachment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.current.Store(a)
	close(c.plugged)
}

// unplug takes a off the wire, if it is still there.
func (c *nic) unplug(a *attachment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current.CompareAndSwap(a, nil) {
		c.plugged = make(chan struct{})
	}
}

// attached returns a channel that is closed when a guest is attached.
func (c *nic) attached() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.plugged
}

// learn notes the hardware address that the guest sends from.
func (c *nic) learn(mac []byte) {
	if string(mac) != string(*c.guest.Load()) && mac[0]&1 == 0 { // else it is a group's
		a := tcpip.LinkAddress(mac)
		c.guest.Store(&a)
	}
}

// deliver hands the packet in frame to the stack. It takes over frame.
func (c *nic) deliver(protocol tcpip.NetworkProtocolNumber, frame *buffer.View) {
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithView(frame)})
	defer pkt.DecRef()
	if _, ok := pkt.LinkHeader().Consume(header.EthernetMinimumSize); !ok {
		return
	}
	pkt.PktType = tcpip.PacketHost
	c.mu.Lock()
	d := c.dispatcher
	c.mu.Unlock()
	if d != nil {
		d.DeliverNetworkPacket(protocol, pkt)
	}
}

// send queues a frame that did not come from the stack.
func (c *nic) send(frame []byte) {
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(frame)})
	defer pkt.DecRef()
	if a := c.current.Load(); a == nil || !a.put(pkt) {
		c.traffic.dropped.Add(1)
	}
}

// WritePackets implements stack.LinkWriter. It never waits: what there is no guest
// or no room for is lost.
func (c *nic) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	a := c.current.Load()
	for _, pkt := range pkts.AsSlice() {
		if a == nil || !a.put(pkt) {
			c.traffic.dropped.Add(1)
			continue
		}
		if pkt.NetworkProtocolNumber == ipv4.ProtocolNumber {
			c.traffic.sent(pkt.NetworkHeader().Slice(), pkt.TransportHeader().Slice(), pkt.Size())
		} else {
			c.traffic.crossedIn(pkt.Size())
		}
	}
	return pkts.Len(), nil
}

// AddHeader implements stack.NetworkLinkEndpoint.
func (c *nic) AddHeader(pkt *stack.PacketBuffer) {
	header.Ethernet(pkt.LinkHeader().Push(header.EthernetMinimumSize)).Encode(&header.EthernetFields{
		SrcAddr: gatewayMAC, DstAddr: *c.guest.Load(), Type: pkt.NetworkProtocolNumber,
	})
}

// Attach implements stack.NetworkLinkEndpoint.
func (c *nic) Attach(d stack.NetworkDispatcher) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dispatcher = d
}

// IsAttached implements stack.NetworkLinkEndpoint.
func (c *nic) IsAttached() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dispatcher != nil
}

// Capabilities implements stack.NetworkLinkEndpoint. Nothing between a guest and
// here loses bits, so checksums of what it sends are not looked at.
func (*nic) Capabilities() stack.LinkEndpointCapabilities { return stack.CapabilityRXChecksumOffload }

// The rest of stack.NetworkLinkEndpoint is constant.

// MTU implements stack.NetworkLinkEndpoint.
func (*nic) MTU() uint32 { return MTU }

// SetMTU implements stack.NetworkLinkEndpoint.
func (*nic) SetMTU(uint32) {}

// MaxHeaderLength implements stack.NetworkLinkEndpoint.
func (*nic) MaxHeaderLength() uint16 { return header.EthernetMinimumSize }

// LinkAddress implements stack.NetworkLinkEndpoint.
func (*nic) LinkAddress() tcpip.LinkAddress { return gatewayMAC }

// SetLinkAddress implements stack.NetworkLinkEndpoint.
func (*nic) SetLinkAddress(tcpip.LinkAddress) {}

// ARPHardwareType implements stack.NetworkLinkEndpoint.
func (*nic) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareEther }

// ParseHeader implements stack.NetworkLinkEndpoint.
func (*nic) ParseHeader(pkt *stack.PacketBuffer) bool {
	_, ok := pkt.LinkHeader().Consume(header.EthernetMinimumSize)
	return ok
}

// Wait implements stack.NetworkLinkEndpoint: goroutines belong to attachments.
func (*nic) Wait() {}

// Close implements stack.NetworkLinkEndpoint.
func (*nic) Close() {}

// SetOnCloseAction implements stack.NetworkLinkEndpoint.
func (*nic) SetOnCloseAction(func()) {}
