package netstack

import (
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// guestPacket6 returns the IPv6 packet at the start of b without what pads the frame, if it
// is one that the guest may send: from its own address, and without extension headers, which
// nothing that programs send has. from may be the guest's address on its link, for NDP.
func guestPacket6(b []byte) (ip header.IPv6, ok bool) {
	ip = header.IPv6(b)
	if !ip.IsValid(len(b)) {
		return nil, false
	}
	ip = ip[:header.IPv6MinimumSize+int(ip.PayloadLength())]
	switch tcpip.TransportProtocolNumber(ip.NextHeader()) {
	case header.TCPProtocolNumber, header.UDPProtocolNumber:
		return ip, ip.SourceAddress() == guestAddr6
	case header.ICMPv6ProtocolNumber:
		if len(ip.Payload()) < header.ICMPv6MinimumSize {
			return nil, false
		}
		return ip, ip.SourceAddress() == guestAddr6 || header.IsV6LinkLocalUnicastAddress(ip.SourceAddress())
	}
	return nil, false
}

// forStack6 is forStack for IPv6, with NDP in the place of ARP. What the guest's kernel says
// to groups by itself is not worth a word.
func (n *Network) forStack6(eth header.Ethernet, ip header.IPv6) bool {
	dst := netip.AddrFrom16(ip.DestinationAddress().As16())
	icmp := ip.NextHeader() == uint8(header.ICMPv6ProtocolNumber)
	switch {
	case icmp && header.ICMPv6(ip.Payload()).Type() == header.ICMPv6NeighborSolicit:
		n.advertise(eth, ip)
		return false
	case dst.IsMulticast() && icmp, ip.SourceAddress() != guestAddr6:
		return false
	case dst.IsMulticast():
		n.deny(Denial{Protocol: protocolName(ip.NextHeader()), Addr: dst, Reason: "multicast and broadcast go nowhere"})
		return false
	case dst == Gateway6 && icmp:
		return header.ICMPv6(ip.Payload()).Type() == header.ICMPv6EchoRequest
	case icmp:
		if !header.ICMPv6(ip.Payload()).Type().IsErrorType() {
			n.deny(Denial{Protocol: "icmp", Addr: dst, Reason: "only TCP and UDP leave the network"})
			n.unreachable6(ip, header.ICMPv6Prohibited)
		}
		return false
	case dst.Is4In6():
		n.deny(Denial{Protocol: protocolName(ip.NextHeader()), Addr: dst, Reason: "IPv4 addresses are reached over IPv4"})
		n.unreachable6(ip, header.ICMPv6Prohibited)
		return false
	}
	return true
}

// advertise answers a question for a neighbour as arp does.
func (n *Network) advertise(eth header.Ethernet, ip header.IPv6) {
	icmp := header.ICMPv6(ip.Payload())
	if len(icmp) < header.ICMPv6NeighborSolicitMinimumSize {
		return
	}
	target := header.NDPNeighborSolicit(icmp.MessageBody()).TargetAddress()
	if target == guestAddr6 || !subnet6.Contains(netip.AddrFrom16(target.As16())) {
		return
	}
	n.nic.learn(eth[header.EthernetAddressSize:][:header.EthernetAddressSize])
	options := header.NDPOptionsSerializer{header.NDPTargetLinkLayerAddressOption(gatewayMAC)}
	size := header.ICMPv6NeighborAdvertMinimumSize + options.Length()
	frame := ethernet(eth.SourceAddress(), header.IPv6ProtocolNumber, header.IPv6MinimumSize+size)
	out := header.ICMPv6(n.encode6(frame, target, ip.SourceAddress(), size))
	out.SetType(header.ICMPv6NeighborAdvert)
	na := header.NDPNeighborAdvert(out.MessageBody())
	na.SetRouterFlag(true)
	na.SetSolicitedFlag(true)
	na.SetOverrideFlag(true)
	na.SetTargetAddress(target)
	na.Options().Serialize(options)
	n.send6(frame, out, target, ip.SourceAddress())
}

// encode6 writes the header of an ICMPv6 packet into frame, and returns its payload.
func (*Network) encode6(frame []byte, from, to tcpip.Address, size int) []byte {
	ip := header.IPv6(frame[header.EthernetMinimumSize:])
	ip.Encode(&header.IPv6Fields{
		PayloadLength: uint16(size), TransportProtocol: header.ICMPv6ProtocolNumber, //nolint:gosec // under 100
		HopLimit: header.NDPHopLimit, SrcAddr: from, DstAddr: to,
	})
	return ip[header.IPv6MinimumSize:]
}

// send6 sends a frame with the ICMPv6 message in it.
func (n *Network) send6(frame []byte, icmp header.ICMPv6, from, to tcpip.Address) {
	icmp.SetChecksum(0)
	icmp.SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: icmp, Src: from, Dst: to}))
	n.nic.send(frame)
}

// unreachable6 is unreachable for IPv6 (RFC 4443, 3.1). The caller passes no ICMPv6 error.
func (n *Network) unreachable6(ip header.IPv6, code header.ICMPv6Code) {
	quoted := min(len(ip), header.IPv6MinimumSize+8)
	from := gatewayAddr6
	if code == header.ICMPv6PortUnreachable {
		from = ip.DestinationAddress() // only the host itself knows its ports
	}
	size := header.ICMPv6DstUnreachableMinimumSize + quoted
	frame := ethernet(*n.nic.guest.Load(), header.IPv6ProtocolNumber, header.IPv6MinimumSize+size)
	out := header.ICMPv6(n.encode6(frame, from, guestAddr6, size))
	out.SetType(header.ICMPv6DstUnreachable)
	out.SetCode(code)
	copy(out[header.ICMPv6DstUnreachableMinimumSize:], ip[:quoted])
	n.send6(frame, out, from, guestAddr6)
}
