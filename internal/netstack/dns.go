package netstack

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/time/rate"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"

	"github.com/xfeldman/aegisvm/internal/logattr"
)

const (
	dnsPort    = 53
	dnsConns   = 16               // over TCP at once
	dnsIdle    = 10 * time.Second // of a TCP connection between questions
	dnsTimeout = 15 * time.Second // of one question, all servers together
	dnsMaxUDP  = 4096             // of a message, whatever the guest says it takes
)

// dnsServer is the gateway's port 53.
type dnsServer struct {
	n       *Network
	rate    *rate.Limiter
	pending chan struct{} // has a token for each question that is being answered
	udp     *gonet.UDPConn
	tcp     net.Listener
}

// serveDNS opens port 53 and answers on it until close.
func (n *Network) serveDNS() error {
	s := &dnsServer{
		n: n, rate: rate.NewLimiter(rate.Limit(n.limits.DNSRate), 2*n.limits.DNSRate),
		pending: make(chan struct{}, n.limits.DNSPending),
	}
	var err error
	if s.udp, err = gonet.DialUDP(n.stack, &tcpip.FullAddress{NIC: nicID, Addr: gatewayAddr, Port: dnsPort}, nil, ipv4.ProtocolNumber); err != nil {
		return err
	}
	if s.tcp, err = n.Listen(dnsPort); err != nil {
		_ = s.udp.Close()
		return err
	}
	n.names = s
	n.wg.Go(s.datagrams)
	n.wg.Go(s.connections)
	return nil
}

// close ends the server after the network's context.
func (s *dnsServer) close() {
	_ = s.udp.SetReadDeadline(time.Unix(1, 0)) // Close would not wake the reader
	_ = s.tcp.Close()                          // never fails
}

// datagrams answers questions over UDP. Those that are too many are dropped, as the
// network would.
func (s *dnsServer) datagrams() {
	defer func() { _ = s.udp.Close() }()
	buf := make([]byte, dnsMaxUDP)
	for {
		size, from, err := s.udp.ReadFrom(buf)
		if s.n.ctx.Err() != nil {
			return
		}
		if err != nil || !s.begin() {
			continue
		}
		query := slices.Clone(buf[:size])
		s.n.wg.Go(func() {
			defer s.end()
			if answer := s.answer(query, true); answer != nil {
				_, _ = s.udp.WriteTo(answer, from) // the guest asks again
			}
		})
	}
}

func (s *dnsServer) begin() bool {
	if !s.rate.Allow() {
		return false
	}
	select {
	case s.pending <- struct{}{}:
		return true
	default:
		return false
	}
}

func (s *dnsServer) end() { <-s.pending }

// connections answers questions over TCP.
func (s *dnsServer) connections() {
	free := make(chan struct{}, dnsConns)
	for {
		c, err := s.tcp.Accept()
		if err != nil {
			return
		}
		select {
		case free <- struct{}{}:
			s.n.wg.Go(func() {
				defer func() { <-free }()
				s.connection(c)
			})
		default:
			_ = c.Close() // the guest has enough
		}
	}
}

func (s *dnsServer) connection(c net.Conn) {
	defer func() { _ = c.Close() }()
	for {
		_ = c.SetDeadline(time.Now().Add(dnsIdle))
		query, err := readMessage(c)
		if err != nil || !s.begin() {
			return
		}
		answer := s.answer(query, false)
		s.end()
		_ = c.SetDeadline(time.Now().Add(dnsIdle))
		if answer == nil || writeMessage(c, answer) != nil {
			return
		}
	}
}

// readMessage reads a message after its length in two bytes (RFC 1035, 4.2.2).
func readMessage(r io.Reader) ([]byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(head[:]))
	_, err := io.ReadFull(r, b)
	return b, err
}

func writeMessage(w io.Writer, b []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)) //nolint:gosec // messages are under 64 KB
	return err
}

// answer returns the message that answers query, or nil for what deserves none.
func (s *dnsServer) answer(query []byte, datagram bool) []byte {
	var p dnsmessage.Parser
	h, err := p.Start(query)
	if err != nil || h.Response {
		return nil
	}
	reply := dnsmessage.Message{Header: dnsmessage.Header{
		ID: h.ID, Response: true, OpCode: h.OpCode, RecursionDesired: h.RecursionDesired, RecursionAvailable: true,
	}}
	limit := 0xffff
	if datagram {
		limit = 512
	}
	qs, err := p.AllQuestions()
	if err != nil || len(qs) != 1 {
		reply.RCode = dnsmessage.RCodeFormatError
		return pack(reply, limit)
	}
	reply.Questions = qs
	if size, ok := ednsOf(&p); ok {
		if datagram {
			limit = min(max(size, limit), dnsMaxUDP)
		}
		reply.Additionals = []dnsmessage.Resource{edns(dnsMaxUDP)}
	}
	if h.OpCode != 0 || qs[0].Class != dnsmessage.ClassINET || slices.Contains(unanswered, qs[0].Type) {
		reply.RCode = dnsmessage.RCodeNotImplemented
	} else {
		s.resolve(&reply, qs[0])
	}
	return pack(reply, limit)
}

// unanswered are types that ask for more than records: any, and whole zones.
var unanswered = []dnsmessage.Type{dnsmessage.TypeALL, dnsmessage.TypeAXFR, 251 /* IXFR */}

// ednsOf returns the size of answers that the sender of a query takes over UDP.
func ednsOf(p *dnsmessage.Parser) (size int, ok bool) {
	if p.SkipAllAnswers() != nil || p.SkipAllAuthorities() != nil {
		return 0, false
	}
	for {
		h, err := p.AdditionalHeader()
		if err != nil {
			return 0, false
		}
		if h.Type == dnsmessage.TypeOPT {
			return int(h.Class), true
		}
		if p.SkipAdditional() != nil {
			return 0, false
		}
	}
}

// pack cuts what is over limit down to its question, with the sign to ask over TCP.
func pack(m dnsmessage.Message, limit int) []byte {
	b, err := m.Pack()
	if err == nil && len(b) <= limit {
		return b
	}
	m.Answers, m.Authorities = nil, nil
	if m.Truncated = err == nil; err != nil {
		m.RCode = dnsmessage.RCodeServerFailure
	}
	if b, err = m.Pack(); err != nil {
		return nil
	}
	return b
}

// resolve fills reply with the answer to q, as far as the guest may have it.
func (s *dnsServer) resolve(reply *dnsmessage.Message, q dnsmessage.Question) {
	name := canonical(q.Name)
	p := *s.n.policy.Load()
	if strings.HasSuffix(name, ".in-addr.arpa") || strings.HasSuffix(name, ".ip6.arpa") {
		// Names of addresses that the guest may not reach are none of its business, and
		// asking for them is no sign of anything.
		addr, ok := reverse(name)
		if !ok || p.Mode == None || !s.n.nameable(p, addr) {
			reply.RCode = dnsmessage.RCodeNameError
			return
		}
	} else if !p.allowsName(name) {
		// Not REFUSED, which is the truth: musl waits out its time for it.
		reply.RCode = dnsmessage.RCodeNameError
		s.n.deny(Denial{Protocol: "dns", Name: name, Reason: "no rule allows this name", Allow: "--allow-host " + name})
		return
	}
	ctx, cancel := context.WithTimeout(s.n.ctx, dnsTimeout)
	defer cancel()
	m, err := s.n.resolver.Resolve(ctx, q)
	if err != nil {
		if !errors.Is(err, ErrClosed) {
			s.n.log.Debug("a question of the guest has no answer", logattr.Err(err))
		}
		reply.RCode = dnsmessage.RCodeServerFailure
		return
	}
	reply.RCode = m.RCode
	reply.Answers = s.n.sift(p, q, m.Answers)
	reply.Authorities = slices.DeleteFunc(m.Authorities, func(r dnsmessage.Resource) bool { return r.Header.Type != dnsmessage.TypeSOA })
}
