package netstack

import (
	"encoding/binary"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// Count is an amount of traffic in one direction.
type Count struct {
	Bytes, Packets uint64
}

// Traffic is what has crossed the guest's network card since New, and what is open
// now. What the guest has with the gateway itself (the workspace and other
// listeners, DNS, ARP) is in none of the counts.
type Traffic struct {
	In, Out Count     // to the guest, and from it
	Last    time.Time // when the last packet that counts crossed; zero for never

	Connections int // TCP, to the outside
	Inbound     int // made by Dial
	Flows       int // UDP

	Opened   uint64 // connections and flows to the outside that were begun since New
	Accepted uint64 // connections that Dial has begun since New

	Denied  uint64 // connections, datagrams' flows and names that were refused
	Dropped uint64 // frames that the guest did not take in time, or sent as another
}

// traffic counts.
type traffic struct {
	inBytes, inPackets   atomic.Uint64
	outBytes, outPackets atomic.Uint64
	last                 atomic.Int64 // Unix nanoseconds
	denied, dropped      atomic.Uint64

	// own has a bit for each port on which the gateway itself listens.
	own [1 << 16 / 64]atomic.Uint64
}

func (t *traffic) setOwn(port uint16, on bool) {
	bit := uint64(1) << (port % 64)
	if on {
		t.own[port/64].Or(bit)
	} else {
		t.own[port/64].And(^bit)
	}
}

func (t *traffic) isOwn(port uint16) bool { return t.own[port/64].Load()>>(port%64)&1 == 1 }

// received counts the IPv4 packet ip, which the guest sent.
func (t *traffic) received(ip []byte) {
	h := header.IPv4(ip)
	if hasPorts(h) && h.DestinationAddress() == gatewayAddr {
		if tp := ip[h.HeaderLength():]; len(tp) >= 4 && t.isOwn(binary.BigEndian.Uint16(tp[2:])) {
			return
		}
	}
	t.crossedOut(len(ip))
}

// received6 counts the IPv6 packet ip, which the guest sent. The gateway listens on no port
// of IPv6.
func (t *traffic) received6(ip []byte) { t.crossedOut(len(ip)) }

func (t *traffic) crossedOut(size int) {
	t.outBytes.Add(uint64(size)) //nolint:gosec // of a packet
	t.outPackets.Add(1)
	t.last.Store(time.Now().UnixNano())
}

// sent counts a packet for the guest, of size bytes with its Ethernet header.
func (t *traffic) sent(network, transport []byte, size int) {
	h := header.IPv4(network)
	if hasPorts(h) && h.SourceAddress() == gatewayAddr && len(transport) >= 4 && t.isOwn(binary.BigEndian.Uint16(transport)) {
		return
	}
	t.crossedIn(size)
}

// crossedIn counts a packet for the guest, of size bytes with its Ethernet header.
func (t *traffic) crossedIn(size int) {
	t.inBytes.Add(uint64(size - header.EthernetMinimumSize)) //nolint:gosec // a frame has a header
	t.inPackets.Add(1)
	t.last.Store(time.Now().UnixNano())
}

// hasPorts reports whether ports follow the header h.
func hasPorts(h header.IPv4) bool {
	p := h.TransportProtocol()
	return (p == header.TCPProtocolNumber || p == header.UDPProtocolNumber) && h.FragmentOffset() == 0
}

// Traffic returns the counts.
func (n *Network) Traffic() Traffic {
	t := &n.traffic
	r := Traffic{
		In:     Count{t.inBytes.Load(), t.inPackets.Load()},
		Out:    Count{t.outBytes.Load(), t.outPackets.Load()},
		Denied: t.denied.Load(), Dropped: t.dropped.Load(),
	}
	if last := t.last.Load(); last != 0 {
		r.Last = time.Unix(0, last)
	}
	r.Opened, r.Accepted = n.flows.begun(outward)+n.flows.begun(datagrams), n.flows.begun(inward)
	r.Connections, r.Inbound, r.Flows = n.flows.count(outward), n.flows.count(inward), n.flows.count(datagrams)
	return r
}
