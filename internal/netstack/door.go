package netstack

import (
	"encoding/binary"
	"net/netip"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
)

// admit decides what becomes of a frame that the guest sent, and takes it over. The
// stack gets packets from the guest's own address only: for any other it would
// have to keep what a guest can make up.
func (n *Network) admit(frame *buffer.View) {
	b := frame.AsSlice()
	eth := header.Ethernet(b)
	payload := b[header.EthernetMinimumSize:]
	switch eth.Type() {
	case header.ARPProtocolNumber:
		n.arp(eth, payload)
	case header.IPv4ProtocolNumber:
		if ip, ok := guestPacket(payload); !ok {
			n.traffic.dropped.Add(1)
		} else if n.forStack(ip) {
			n.nic.learn(eth[header.EthernetAddressSize:][:header.EthernetAddressSize])
			n.traffic.received(ip)
			n.nic.deliver(ipv4.ProtocolNumber, frame)
			return
		}
	case header.IPv6ProtocolNumber:
		if ip, ok := guestPacket6(payload); !ok {
			n.traffic.dropped.Add(1)
		} else if n.forStack6(eth, ip) {
			n.nic.learn(eth[header.EthernetAddressSize:][:header.EthernetAddressSize])
			n.traffic.received6(ip)
			n.nic.deliver(ipv6.ProtocolNumber, frame)
			return
		}
	}
	frame.Release()
}

// guestPacket returns the IPv4 packet at the start of b without what pads the frame,
// if it is one that the guest may send.
func guestPacket(b []byte) (header.IPv4, bool) {
	ip := header.IPv4(b)
	if !ip.IsValid(len(b)) || ip.SourceAddress() != guestAddr {
		return nil, false
	}
	return ip[:ip.TotalLength()], true
}

// forStack answers what the stack would not, or not truthfully: with all addresses
// being its own, it would answer pings for the whole world.
func (n *Network) forStack(ip header.IPv4) bool {
	dst := ip.DestinationAddress()
	addr := netip.AddrFrom4(dst.As4())
	switch {
	case dst == gatewayAddr:
		return true
	case addr.IsMulticast(), dst == header.IPv4Broadcast, addr == broadcast:
		n.deny(Denial{Protocol: protocolName(ip.Protocol()), Addr: addr, Reason: "multicast and broadcast go nowhere"})
		return false
	case ip.TransportProtocol() == header.TCPProtocolNumber, ip.TransportProtocol() == header.UDPProtocolNumber:
		return true
	default:
		n.deny(Denial{Protocol: protocolName(ip.Protocol()), Addr: addr, Reason: "only TCP and UDP leave the network"})
		n.unreachable(ip, header.ICMPv4AdminProhibited)
		return false
	}
}

func protocolName(p uint8) string {
	switch tcpip.TransportProtocolNumber(p) {
	case header.TCPProtocolNumber:
		return "tcp"
	case header.UDPProtocolNumber:
		return "udp"
	case header.ICMPv4ProtocolNumber:
		return "icmp"
	default:
		return "ip"
	}
}

// arp answers questions for the gateway, and for every other address of the network:
// there is nobody, and what is refused by the gateway is refused at once. The guest's
// own address is not answered for, or it would take that for a conflict.
func (n *Network) arp(eth header.Ethernet, b []byte) {
	q := header.ARP(b)
	if !q.IsValid() || q.Op() != header.ARPRequest {
		return
	}
	sender, target := q.ProtocolAddressSender(), q.ProtocolAddressTarget()
	if tcpip.AddrFrom4Slice(sender) != guestAddr || tcpip.AddrFrom4Slice(target) == guestAddr ||
		!subnet.Contains(netip.AddrFrom4([4]byte(target))) {
		return
	}
	n.nic.learn(eth[header.EthernetAddressSize:][:header.EthernetAddressSize])
	frame := ethernet(eth.SourceAddress(), header.ARPProtocolNumber, header.ARPSize)
	a := header.ARP(frame[header.EthernetMinimumSize:])
	a.SetIPv4OverEthernet()
	a.SetOp(header.ARPReply)
	copy(a.HardwareAddressSender(), gatewayMAC)
	copy(a.ProtocolAddressSender(), target)
	copy(a.HardwareAddressTarget(), q.HardwareAddressSender())
	copy(a.ProtocolAddressTarget(), guestAddr.AsSlice())
	n.nic.send(frame)
}

// unreachable answers the packet ip, of which the header and 8 bytes are enough, with
// ICMP "destination unreachable" of some code. It answers no ICMP but echo requests, so
// that nothing goes round (RFC 1122, 3.2.2).
func (n *Network) unreachable(ip header.IPv4, code header.ICMPv4Code) {
	quoted := ip.HeaderLength() + 8
	payload := ip[ip.HeaderLength():]
	if ip.FragmentOffset() != 0 || len(payload) < 8 ||
		ip.TransportProtocol() == header.ICMPv4ProtocolNumber && header.ICMPv4(payload).Type() != header.ICMPv4Echo {
		return
	}
	from := gatewayAddr
	if code == header.ICMPv4PortUnreachable {
		from = ip.DestinationAddress() // only the host itself knows its ports
	}
	size := header.IPv4MinimumSize + header.ICMPv4MinimumSize + int(quoted)
	frame := ethernet(*n.nic.guest.Load(), header.IPv4ProtocolNumber, size)
	out := header.IPv4(frame[header.EthernetMinimumSize:])
	out.Encode(&header.IPv4Fields{
		TotalLength: uint16(size), TTL: 64, Protocol: uint8(header.ICMPv4ProtocolNumber), //nolint:gosec // under 100
		SrcAddr: from, DstAddr: guestAddr,
	})
	out.SetChecksum(^out.CalculateChecksum())
	icmp := header.ICMPv4(out[header.IPv4MinimumSize:])
	icmp.SetType(header.ICMPv4DstUnreachable)
	icmp.SetCode(code)
	copy(icmp[header.ICMPv4MinimumSize:], ip[:quoted])
	icmp.SetChecksum(header.ICMPv4Checksum(icmp, 0))
	n.nic.send(frame)
}

// ethernet returns a frame from the gateway with room for size bytes.
func ethernet(to tcpip.LinkAddress, kind tcpip.NetworkProtocolNumber, size int) []byte {
	frame := make([]byte, header.EthernetMinimumSize+size)
	copy(frame, to)
	copy(frame[header.EthernetAddressSize:], gatewayMAC)
	binary.BigEndian.PutUint16(frame[2*header.EthernetAddressSize:], uint16(kind)) //nolint:gosec // 16 bits on the wire
	return frame
}
