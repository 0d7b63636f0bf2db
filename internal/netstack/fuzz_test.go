package netstack

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/xfeldman/aegisvm/internal/netstack/netstacktest"
)

func framed(frames ...[]byte) []byte {
	var b []byte
	for _, f := range frames {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(f))), f...)
	}
	return b
}

func TestReadFrame(t *testing.T) {
	good := bytes.Repeat([]byte("x"), 60)
	longest := bytes.Repeat([]byte("y"), maxFrame)
	r := bufio.NewReaderSize(bytes.NewReader(framed(
		nil, good[:13], good, make([]byte, maxFrame+1), make([]byte, maxLength), longest, good[:14],
	)), readSize)
	for _, want := range [][]byte{good, longest, good[:14]} {
		v, err := readFrame(r)
		if err != nil || !bytes.Equal(v.AsSlice(), want) {
			t.Errorf("%v, %v, want %d bytes", v, err, len(want))
		}
	}
	if _, err := readFrame(r); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	for name, b := range map[string][]byte{
		"too long to be a frame": framed(make([]byte, maxLength+1)),
		"all ones":               {0xff, 0xff, 0xff, 0xff},
		"cut":                    framed(good)[:30],
		"cut in the length":      {0, 0},
		"cut in what is skipped": framed(make([]byte, maxFrame+1))[:maxFrame],
	} {
		if v, err := readFrame(bufio.NewReader(bytes.NewReader(b))); err == nil {
			t.Errorf("%s: %d bytes", name, v.Size())
		}
	}
}

// Whatever the bytes, the reader ends, with frames of allowed sizes only.
func FuzzReadFrame(f *testing.F) {
	f.Add(framed(make([]byte, 60), make([]byte, 1)))
	f.Add(framed(make([]byte, maxFrame+1)))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bufio.NewReaderSize(bytes.NewReader(b), readSize)
		for {
			v, err := readFrame(r)
			if err != nil {
				return
			}
			if n := v.Size(); n < header.EthernetMinimumSize || n > maxFrame {
				t.Fatalf("a frame of %d bytes", n)
			}
			v.Release()
		}
	})
}

// Whatever the guest sends, the network serves it afterwards, and nothing that is
// denied is dialed.
func FuzzAdmit(f *testing.F) {
	guest := netip.AddrPortFrom(Guest, 5)
	for _, to := range []string{"93.184.216.34:80", "10.0.0.1:80", "192.168.127.1:53", "192.168.127.1:2049", "224.0.0.1:1"} {
		f.Add(netstacktest.SYN(guest, ap(to), 1))
		f.Add(netstacktest.Datagram(guest, ap(to), query("example.com", dnsmessage.TypeA)))
		f.Add(netstacktest.Packet(Guest, ap(to).Addr(), header.ICMPv4ProtocolNumber, make([]byte, 20)))
	}
	f.Add(netstacktest.Frame(header.ARPProtocolNumber, make([]byte, header.ARPSize)))
	f.Add(netstacktest.Frame(header.IPv6ProtocolNumber, make([]byte, 60)))
	for _, to := range []netip.Addr{netip.MustParseAddr(site6), Gateway6, netip.MustParseAddr("ff02::1:ff00:1"), netip.MustParseAddr("::ffff:10.0.0.1")} {
		f.Add(packet6(to, header.TCPProtocolNumber, append([]byte{0, 9, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2}, make([]byte, 6)...)))
		f.Add(packet6(to, header.UDPProtocolNumber, []byte{0, 9, 0, 53, 0, 9, 0, 0, 1}))
		f.Add(packet6(to, header.ICMPv6ProtocolNumber, append([]byte{byte(header.ICMPv6NeighborSolicit), 0, 0, 0, 0, 0, 0, 0}, Gateway6.AsSlice()...)))
		f.Add(packet6(to, header.ICMPv6ProtocolNumber, []byte{byte(header.ICMPv6EchoRequest), 0, 0, 0, 0, 0, 0, 0}))
		f.Add(packet6(to, 0, []byte{6, 0, 0, 0, 0, 0, 0, 0}))  // hop-by-hop options
		f.Add(packet6(to, 44, []byte{6, 0, 0, 1, 0, 0, 0, 7})) // a fragment
	}
	n, err := New(Config{
		Log: slog.New(slog.DiscardHandler), Resolver: newNames(), Policy: Policy{Mode: None}, Dial: (&world{}).dial,
		HostAddrs: func() ([]netip.Addr, error) { return nil, nil },
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = n.Close() })
	if _, err := n.Listen(2049); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < header.EthernetMinimumSize || len(b) > maxFrame {
			return
		}
		n.admit(buffer.NewViewWithData(b))
		if got := n.Traffic(); got.Connections+got.Flows != 0 {
			t.Fatalf("%+v", got)
		}
	})
}

// packet6 is a frame with a packet of IPv6 from the guest.
func packet6(to netip.Addr, next tcpip.TransportProtocolNumber, payload []byte) []byte {
	b := make([]byte, header.IPv6MinimumSize)
	header.IPv6(b).Encode(&header.IPv6Fields{
		PayloadLength: uint16(len(payload)), TransportProtocol: next, HopLimit: 64, SrcAddr: guestAddr6, DstAddr: tcpip.AddrFrom16(to.As16()),
	})
	return netstacktest.Frame(header.IPv6ProtocolNumber, append(b, payload...))
}

// An answer is a message for the one who asked.
func FuzzAnswer(f *testing.F) {
	f.Add(query("example.com", dnsmessage.TypeA), true)
	f.Add(query("1.0.0.10.in-addr.arpa", dnsmessage.TypePTR), false)
	f.Add(query("example.com", dnsmessage.TypeTXT, func(m *dnsmessage.Message) { m.Additionals = append(m.Additionals, edns(512)) }), true)
	z := newNames()
	z.set("example.com", "93.184.216.34", "10.0.0.1")
	n, err := New(Config{Log: slog.New(slog.DiscardHandler), Resolver: z, HostAddrs: func() ([]netip.Addr, error) { return nil, nil }})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = n.Close() })
	s := &dnsServer{n: n}
	f.Fuzz(func(t *testing.T, b []byte, datagram bool) {
		a := s.answer(b, datagram)
		if a == nil {
			return
		}
		var m dnsmessage.Message
		if err := m.Unpack(a); err != nil {
			t.Fatal(err)
		}
		if !m.Response || m.ID != binary.BigEndian.Uint16(b) || datagram && len(a) > dnsMaxUDP {
			t.Fatalf("%d bytes, %+v", len(a), m.Header)
		}
		for _, addr := range addrs(m) {
			if addr != "93.184.216.34" {
				t.Fatal(addr)
			}
		}
	})
}

// What a server answers is taken or refused, and never kept beyond its bounds.
func FuzzUnpackAnswer(f *testing.F) {
	q := dnsmessage.Question{Name: toName("example.com"), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}
	good := dnsmessage.Message{Header: dnsmessage.Header{ID: 7, Response: true}, Questions: []dnsmessage.Question{q}, Answers: []dnsmessage.Resource{
		record("example.com", 1, &dnsmessage.CNAMEResource{CNAME: toName("a.example")}),
		record("a.example", 1, &dnsmessage.AResource{A: [4]byte{93, 184, 216, 34}}),
	}}
	b, err := good.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	n := &Network{pins: newPins(4), denials: newDenials(1), routable: func(netip.Addr) bool { return true }, host: hostAddrs{list: func() ([]netip.Addr, error) { return nil, nil }}}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := unpackAnswer(b, 7, q)
		if err != nil {
			return
		}
		for _, r := range n.sift(Policy{}, q, m.Answers) {
			if a, ok := r.Body.(*dnsmessage.AResource); ok && gradeOf(netip.AddrFrom4(a.A)).grade != global {
				t.Fatalf("%v is passed on", a.A)
			}
		}
		if n.pins.order.Len() > 4 {
			t.Fatal("too many pins")
		}
	})
}

func FuzzParseConf(f *testing.F) {
	f.Add("nameserver 127.0.0.53\noptions timeout:1 attempts:9 rotate\n# x\nnameserver fe80::1%eth0\n")
	f.Fuzz(func(t *testing.T, s string) {
		c := parseConf(s)
		if len(c.servers) > 3 || c.attempts < 1 || c.attempts > 3 || c.timeout <= 0 {
			t.Fatalf("%+v", c)
		}
	})
}
