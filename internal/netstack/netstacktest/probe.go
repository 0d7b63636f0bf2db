package netstacktest

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/xfeldman/aegisvm/internal/vmm"
)

// probePort is the source port of probes.
const probePort = 3333

// Frame returns an Ethernet frame of the guest.
func Frame(kind tcpip.NetworkProtocolNumber, payload []byte) []byte {
	frame := make([]byte, header.EthernetMinimumSize, header.EthernetMinimumSize+len(payload))
	copy(frame, "\xff\xff\xff\xff\xff\xff")
	copy(frame[6:], vmm.CardAddress[:])
	binary.BigEndian.PutUint16(frame[12:], uint16(kind)) //nolint:gosec // 16 bits on the wire
	return append(frame, payload...)
}

// Packet returns a frame with an IPv4 packet from any address to any other.
func Packet(from, to netip.Addr, protocol tcpip.TransportProtocolNumber, payload []byte) []byte {
	b := make([]byte, header.IPv4MinimumSize, header.IPv4MinimumSize+len(payload))
	ip := header.IPv4(b)
	ip.Encode(&header.IPv4Fields{
		TotalLength: uint16(len(b) + len(payload)), TTL: 64, Protocol: uint8(protocol), //nolint:gosec // a test's packet
		SrcAddr: address(from), DstAddr: address(to),
	})
	ip.SetChecksum(^ip.CalculateChecksum())
	return Frame(header.IPv4ProtocolNumber, append(b, payload...))
}

// SYN returns a frame that asks for a TCP connection.
func SYN(from, to netip.AddrPort, seq uint32) []byte {
	t := header.TCP(make([]byte, header.TCPMinimumSize))
	t.Encode(&header.TCPFields{
		SrcPort: from.Port(), DstPort: to.Port(), SeqNum: seq, DataOffset: header.TCPMinimumSize,
		Flags: header.TCPFlagSyn, WindowSize: 65535,
	})
	sum := header.PseudoHeaderChecksum(header.TCPProtocolNumber, address(from.Addr()), address(to.Addr()), uint16(len(t))) //nolint:gosec // 20
	t.SetChecksum(^t.CalculateChecksum(sum))
	return Packet(from.Addr(), to.Addr(), header.TCPProtocolNumber, t)
}

// Datagram returns a frame with a UDP datagram.
func Datagram(from, to netip.AddrPort, payload []byte) []byte {
	b := make([]byte, header.UDPMinimumSize, header.UDPMinimumSize+len(payload))
	b = append(b, payload...)
	u := header.UDP(b)
	u.Encode(&header.UDPFields{SrcPort: from.Port(), DstPort: to.Port(), Length: uint16(len(b))})                          //nolint:gosec // a test's datagram
	sum := header.PseudoHeaderChecksum(header.UDPProtocolNumber, address(from.Addr()), address(to.Addr()), uint16(len(b))) //nolint:gosec // a test's datagram
	u.SetChecksum(^u.CalculateChecksum(checksum.Checksum(payload, sum)))
	return Packet(from.Addr(), to.Addr(), header.UDPProtocolNumber, b)
}

// Answer is what a probe was answered with.
type Answer string

// The answers.
const (
	Accepted    Answer = "SYN-ACK"
	Reset       Answer = "RST"
	Unreachable Answer = "port unreachable"
	Prohibited  Answer = "prohibited"
)

// Probe sends the first packet of a flow over "tcp", "udp" or "icmp" to any address, also to those that no stack
// would send to, and returns what comes back.
func (g *Guest) Probe(ctx context.Context, network string, to netip.AddrPort) (Answer, error) {
	from := netip.AddrPortFrom(self, probePort)
	frame := SYN(from, to, 1)
	switch network {
	case "udp":
		frame = Datagram(from, to, []byte("?"))
	case "icmp":
		echo := header.ICMPv4(make([]byte, header.ICMPv4MinimumSize+8))
		echo.SetType(header.ICMPv4Echo)
		echo.SetChecksum(header.ICMPv4Checksum(echo, 0))
		frame = Packet(self, to.Addr(), header.ICMPv4ProtocolNumber, echo)
	}
	answers := make(chan Answer, 1)
	g.setTap(func(frame []byte) {
		if a := answerTo(frame, to); a != "" {
			select {
			case answers <- a:
			default:
			}
		}
	})
	defer g.setTap(nil)
	if err := g.Send(frame); err != nil {
		return "", err
	}
	select {
	case a := <-answers:
		return a, nil
	case <-ctx.Done():
		return "", errors.Join(errors.New("no answer"), context.Cause(ctx))
	}
}

// answerTo says what frame answers to a probe of to, "" if it is about another.
func answerTo(frame []byte, to netip.AddrPort) Answer {
	eth := header.Ethernet(frame)
	if len(frame) < header.EthernetMinimumSize+header.IPv4MinimumSize || eth.Type() != header.IPv4ProtocolNumber {
		return ""
	}
	ip := header.IPv4(frame[header.EthernetMinimumSize:])
	payload := ip[ip.HeaderLength():]
	if ip.TransportProtocol() == header.TCPProtocolNumber {
		t := header.TCP(payload)
		switch {
		case ip.SourceAddress() != address(to.Addr()), t.SourcePort() != to.Port(), t.DestinationPort() != probePort:
		case t.Flags().Contains(header.TCPFlagRst):
			return Reset
		case t.Flags().Contains(header.TCPFlagSyn | header.TCPFlagAck):
			return Accepted
		}
		return ""
	}
	icmp := header.ICMPv4(payload)
	if ip.TransportProtocol() != header.ICMPv4ProtocolNumber || icmp.Type() != header.ICMPv4DstUnreachable ||
		header.IPv4(icmp[header.ICMPv4MinimumSize:]).DestinationAddress() != address(to.Addr()) {
		return ""
	}
	if icmp.Code() == header.ICMPv4PortUnreachable {
		return Unreachable
	}
	return Prohibited
}

func (g *Guest) setTap(f func(frame []byte)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tap = f
}
