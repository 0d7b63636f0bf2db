package netstack

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

const (
	maxDatagram = 65507 // of IPv4, and less than of IPv6

	// What the guest sends faster than the outside takes it waits here, all flows
	// together.
	udpQueue   = 64      // datagrams of one flow
	udpBacklog = 4 << 20 // bytes of all
)

// udpFlows forwards datagrams. It needs no endpoints of the stack: their queues count
// payload only, and empty datagrams are free.
type udpFlows struct {
	waiting atomic.Int64 // bytes in all queues

	mu  sync.Mutex
	all map[stack.TransportEndpointID]*udpFlow
}

// udpFlow is a pair of addresses between which datagrams have passed lately.
type udpFlow struct {
	*flow

	id   stack.TransportEndpointID
	out  chan []byte  // to the outside
	last atomic.Int64 // when a datagram passed, in Unix nanoseconds
}

// handleUDP gets what no listener takes. False answers it with ICMP "port
// unreachable".
func (n *Network) handleUDP(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	n.udp.mu.Lock()
	f := n.udp.all[id]
	n.udp.mu.Unlock()
	if f == nil {
		var allowed bool
		if f, allowed = n.beginUDP(id); !allowed {
			return false
		}
	}
	if f != nil {
		n.udp.put(f, pkt.Data().AsRange().ToSlice())
	}
	return true
}

// beginUDP makes a flow. It returns nil if there are too many.
func (n *Network) beginUDP(id stack.TransportEndpointID) (f *udpFlow, allowed bool) {
	dst := addrPort(id)
	names := n.pins.names(dst.Addr())
	if d, ok := n.judge(dst, names); !ok {
		d.Protocol = "udp"
		n.deny(d)
		return nil, false
	}
	base, err := n.flows.begin(datagrams, n.limits.Flows, dst, names)
	if err != nil {
		n.traffic.dropped.Add(1)
		return nil, true
	}
	f = &udpFlow{flow: base, id: id, out: make(chan []byte, udpQueue)}
	f.last.Store(time.Now().UnixNano())
	n.udp.mu.Lock()
	if n.udp.all == nil {
		n.udp.all = make(map[stack.TransportEndpointID]*udpFlow)
	}
	n.udp.all[id] = f
	n.udp.mu.Unlock()
	go n.carryUDP(f) // flows.close waits for it
	return f, true
}

// put queues a datagram for the outside, if there is room.
func (u *udpFlows) put(f *udpFlow, b []byte) {
	if u.waiting.Add(int64(len(b))) > udpBacklog {
		u.waiting.Add(-int64(len(b)))
		return
	}
	select {
	case f.out <- b:
	default:
		u.waiting.Add(-int64(len(b)))
	}
}

// carryUDP forwards the datagrams of a flow until it is idle or ended.
func (n *Network) carryUDP(f *udpFlow) {
	defer n.flows.done(f.flow)
	defer func() {
		n.udp.mu.Lock()
		defer n.udp.mu.Unlock()
		delete(n.udp.all, f.id)
		for len(f.out) > 0 {
			n.udp.waiting.Add(-int64(len(<-f.out)))
		}
	}()
	out, err := n.dialOut(f.ctx, "udp", f.dst)
	if err != nil {
		n.refused(f.id)
		return
	}
	stop := context.AfterFunc(f.ctx, func() { _ = out.Close() })
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { n.outbound(f, out) })
	n.inbound(f, out)
	f.cancel(errIdle)
	_ = out.Close() // it was idle, or is closed
	wg.Wait()
}

var errIdle = errors.New("idle")

// outbound sends what the guest sent.
func (n *Network) outbound(f *udpFlow, out net.Conn) {
	for {
		select {
		case b := <-f.out:
			n.udp.waiting.Add(-int64(len(b)))
			f.last.Store(time.Now().UnixNano())
			_, _ = out.Write(b) // datagrams may be lost
		case <-f.ctx.Done():
			return
		}
	}
}

// inbound sends to the guest what comes from the outside, until the flow is idle.
func (n *Network) inbound(f *udpFlow, out net.Conn) {
	for src := newSource(out); f.ctx.Err() == nil; {
		_ = out.SetReadDeadline(time.Unix(0, f.last.Load()).Add(n.limits.FlowIdle))
		b, size, err := src.next()
		switch {
		case err == nil:
			f.last.Store(time.Now().UnixNano())
			n.datagram(f.id, b[:size])
		case errors.Is(err, os.ErrDeadlineExceeded):
			if time.Since(time.Unix(0, f.last.Load())) >= n.limits.FlowIdle {
				err = errIdle
			}
		case errors.Is(err, syscall.ECONNREFUSED): // nobody listens, for now
			n.refused(f.id)
		default:
			err = errIdle
		}
		b.release()
		if errors.Is(err, errIdle) {
			return
		}
	}
}

// refused tells the guest that nobody listens where it sent to.
func (n *Network) refused(id stack.TransportEndpointID) {
	if id.LocalAddress.Len() == header.IPv6AddressSize {
		n.refused6(id)
		return
	}
	ip := header.IPv4(make([]byte, header.IPv4MinimumSize+header.UDPMinimumSize))
	ip.Encode(&header.IPv4Fields{
		TotalLength: uint16(len(ip)), TTL: 64, Protocol: uint8(udp.ProtocolNumber), //nolint:gosec // 28
		SrcAddr: id.RemoteAddress, DstAddr: id.LocalAddress,
	})
	ip.SetChecksum(^ip.CalculateChecksum())
	header.UDP(ip[header.IPv4MinimumSize:]).Encode(&header.UDPFields{
		SrcPort: id.RemotePort, DstPort: id.LocalPort, Length: header.UDPMinimumSize,
	})
	n.unreachable(ip, header.ICMPv4PortUnreachable)
}

func (n *Network) refused6(id stack.TransportEndpointID) {
	ip := header.IPv6(make([]byte, header.IPv6MinimumSize+header.UDPMinimumSize))
	ip.Encode(&header.IPv6Fields{
		PayloadLength: header.UDPMinimumSize, TransportProtocol: udp.ProtocolNumber, HopLimit: 64,
		SrcAddr: id.RemoteAddress, DstAddr: id.LocalAddress,
	})
	header.UDP(ip[header.IPv6MinimumSize:]).Encode(&header.UDPFields{
		SrcPort: id.RemotePort, DstPort: id.LocalPort, Length: header.UDPMinimumSize,
	})
	n.unreachable6(ip, header.ICMPv6PortUnreachable)
}

// datagram sends b to the guest, from where it sent to.
func (n *Network) datagram(id stack.TransportEndpointID, b []byte) {
	protocol := ipv4.ProtocolNumber
	if id.LocalAddress.Len() == header.IPv6AddressSize {
		protocol = ipv6.ProtocolNumber
	}
	r, err := n.stack.FindRoute(nicID, id.LocalAddress, id.RemoteAddress, protocol, false)
	if err != nil {
		return
	}
	defer r.Release()
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: header.UDPMinimumSize + int(r.MaxHeaderLength()),
		Payload:            buffer.MakeWithData(b),
	})
	defer pkt.DecRef()
	pkt.TransportProtocolNumber = udp.ProtocolNumber
	size := uint16(header.UDPMinimumSize + len(b)) //nolint:gosec // at most maxDatagram
	h := header.UDP(pkt.TransportHeader().Push(header.UDPMinimumSize))
	h.Encode(&header.UDPFields{SrcPort: id.LocalPort, DstPort: id.RemotePort, Length: size})
	sum := h.CalculateChecksum(checksum.Combine(r.PseudoHeaderChecksum(udp.ProtocolNumber, size), pkt.Data().Checksum()))
	if sum != 0xffff { // a sum of 0 would mean that there is none
		sum = ^sum
	}
	h.SetChecksum(sum)
	_ = r.WritePacket(stack.NetworkHeaderParams{Protocol: udp.ProtocolNumber, TTL: 64}, pkt) // datagrams may be lost
}
