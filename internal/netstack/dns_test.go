package netstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// names is a resolver that knows a few.
type names struct {
	mu    sync.Mutex
	zone  map[string][]dnsmessage.Resource // "example.com A"
	asked []string
	hold  chan struct{} // not nil: answers wait until it is closed
	count atomic.Int64
}

func (z *names) Resolve(ctx context.Context, q dnsmessage.Question) (dnsmessage.Message, error) {
	z.count.Add(1)
	if z.hold != nil {
		select {
		case <-z.hold:
		case <-ctx.Done():
			return dnsmessage.Message{}, context.Cause(ctx)
		}
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	key := canonical(q.Name) + " " + strings.TrimPrefix(q.Type.String(), "Type")
	z.asked = append(z.asked, key)
	rr, ok := z.zone[key]
	if !ok {
		return dnsmessage.Message{Header: dnsmessage.Header{RCode: dnsmessage.RCodeNameError}}, nil
	}
	return dnsmessage.Message{Answers: rr}, nil
}

// set makes name have addresses.
func (z *names) set(name string, addrs ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	key := name + " A"
	z.zone[key] = nil
	for _, a := range addrs {
		z.zone[key] = append(z.zone[key], record(name, 300, &dnsmessage.AResource{A: netip.MustParseAddr(a).As4()}))
	}
}

func record(name string, ttl uint32, body dnsmessage.ResourceBody) dnsmessage.Resource {
	t := dnsmessage.TypeA
	switch b := body.(type) {
	case *dnsmessage.AAAAResource:
		t = dnsmessage.TypeAAAA
	case *dnsmessage.CNAMEResource:
		t = dnsmessage.TypeCNAME
	case *dnsmessage.TXTResource:
		t = dnsmessage.TypeTXT
	case *dnsmessage.MXResource:
		t = dnsmessage.TypeMX
	case *dnsmessage.PTRResource:
		t = dnsmessage.TypePTR
	case *dnsmessage.UnknownResource:
		t = b.Type
	}
	return dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: toName(name), Type: t, Class: dnsmessage.ClassINET, TTL: ttl}, Body: body}
}

func newNames() *names { return &names{zone: map[string][]dnsmessage.Resource{}} }

func query(name string, t dnsmessage.Type, change ...func(*dnsmessage.Message)) []byte {
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 77, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: toName(name), Type: t, Class: dnsmessage.ClassINET}},
	}
	for _, f := range change {
		f(&m)
	}
	b, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return b
}

// ask asks the gateway over UDP.
func (r *rig) ask(tb testing.TB, name string, t dnsmessage.Type, change ...func(*dnsmessage.Message)) dnsmessage.Message {
	tb.Helper()
	b, err := r.guest.Ask(soon(tb), netip.AddrPortFrom(Gateway, 53), query(name, t, change...))
	if err != nil {
		tb.Fatalf("ask for %s: %v", name, err)
	}
	return parse(tb, b)
}

func parse(tb testing.TB, b []byte) dnsmessage.Message {
	tb.Helper()
	var m dnsmessage.Message
	if err := m.Unpack(b); err != nil {
		tb.Fatal(err)
	}
	if !m.Response || m.ID != 77 {
		tb.Errorf("header %+v", m.Header)
	}
	return m
}

// addrs returns the addresses in an answer.
func addrs(m dnsmessage.Message) []string {
	var out []string
	for _, a := range m.Answers {
		switch b := a.Body.(type) {
		case *dnsmessage.AResource:
			out = append(out, netip.AddrFrom4(b.A).String())
		case *dnsmessage.AAAAResource:
			out = append(out, netip.AddrFrom16(b.AAAA).String())
		}
	}
	return out
}

func TestNames(t *testing.T) {
	z := newNames()
	z.set("example.com", "93.184.216.34")
	z.zone["example.com AAAA"] = []dnsmessage.Resource{record("example.com", 9e6, &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr("2606:2800::1").As16()})}
	z.zone["www.example.com A"] = []dnsmessage.Resource{
		record("edge.example.net", 60, &dnsmessage.AResource{A: [4]byte{93, 184, 216, 35}}),
		record("unrelated.example", 60, &dnsmessage.AResource{A: [4]byte{93, 184, 216, 36}}),
		record("www.example.com", 60, &dnsmessage.CNAMEResource{CNAME: toName("edge.example.net")}),
	}
	z.zone["example.com TXT"] = []dnsmessage.Resource{record("example.com", 60, &dnsmessage.TXTResource{TXT: []string{"v=spf1"}})}
	z.zone["example.com MX"] = []dnsmessage.Resource{record("example.com", 60, &dnsmessage.MXResource{Pref: 10, MX: toName("mx.example.com")})}
	z.zone["34.216.184.93.in-addr.arpa PTR"] = []dnsmessage.Resource{record("34.216.184.93.in-addr.arpa", 60, &dnsmessage.PTRResource{PTR: toName("example.com")})}
	z.zone["example.com HTTPS"] = []dnsmessage.Resource{record("example.com", 60, &dnsmessage.UnknownResource{Type: dnsmessage.TypeHTTPS, Data: []byte{0, 1, 0}})}
	r := start(t, func(c *Config) { c.Resolver = z })

	if m := r.ask(t, "Example.COM", dnsmessage.TypeA); !slices.Equal(addrs(m), []string{"93.184.216.34"}) || m.RCode != 0 || !m.RecursionAvailable {
		t.Errorf("%+v", m)
	}
	if m := r.ask(t, "example.com", dnsmessage.TypeAAAA); !slices.Equal(addrs(m), []string{"2606:2800::1"}) || m.Answers[0].Header.TTL != 3600 {
		t.Errorf("%+v", m)
	}
	if m := r.ask(t, "www.example.com", dnsmessage.TypeA); !slices.Equal(addrs(m), []string{"93.184.216.35"}) || len(m.Answers) != 2 {
		t.Errorf("%+v", m)
	}
	for _, q := range []struct {
		name string
		typ  dnsmessage.Type
	}{{"example.com", dnsmessage.TypeTXT}, {"example.com", dnsmessage.TypeMX}, {"34.216.184.93.in-addr.arpa", dnsmessage.TypePTR}, {"example.com", dnsmessage.TypeHTTPS}} {
		if m := r.ask(t, q.name, q.typ); len(m.Answers) != 1 || m.RCode != 0 {
			t.Errorf("%s %s: %+v", q.name, q.typ, m)
		}
	}
	if m := r.ask(t, "nowhere.example", dnsmessage.TypeA); m.RCode != dnsmessage.RCodeNameError {
		t.Errorf("%+v", m)
	}
	for _, private := range []string{"1.0.0.10.in-addr.arpa", "2.127.168.192.in-addr.arpa", strings.Repeat("0.", 30) + "d.f.ip6.arpa"} {
		if m := r.ask(t, private, dnsmessage.TypePTR); m.RCode != dnsmessage.RCodeNameError {
			t.Errorf("%s: %+v", private, m)
		}
	}
	z.zone["1.0.0.10.in-addr.arpa PTR"] = []dnsmessage.Resource{record("1.0.0.10.in-addr.arpa", 60, &dnsmessage.PTRResource{PTR: toName("printer.lan")})}
	for mode, want := range map[Mode]int{None: 0, Public: 0, All: 1} {
		if err := r.SetPolicy(Policy{Mode: mode}); err != nil {
			t.Fatal(err)
		}
		if m := r.ask(t, "1.0.0.10.in-addr.arpa", dnsmessage.TypePTR); len(m.Answers) != want {
			t.Errorf("%s: %+v", mode, m)
		}
	}
	for _, typ := range unanswered {
		if m := r.ask(t, "example.com", typ); m.RCode != dnsmessage.RCodeNotImplemented {
			t.Errorf("%s: %+v", typ, m)
		}
	}
	if got := r.Traffic(); got.In.Packets+got.Out.Packets != 0 {
		t.Errorf("questions count as traffic: %+v", got)
	}
}

func TestLongAnswers(t *testing.T) {
	z := newNames()
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprintf("93.184.217.%d", i))
	}
	z.set("many.example", many...)
	r := start(t, func(c *Config) { c.Resolver = z })
	if m := r.ask(t, "many.example", dnsmessage.TypeA); !m.Truncated || len(m.Answers) != 0 {
		t.Errorf("%d answers, %+v", len(m.Answers), m.Header)
	}
	withEDNS := func(m *dnsmessage.Message) { m.Additionals = append(m.Additionals, edns(4096)) }
	if m := r.ask(t, "many.example", dnsmessage.TypeA, withEDNS); m.Truncated || len(m.Answers) != maxAnswers || len(m.Additionals) != 1 {
		t.Errorf("%d answers, %+v", len(m.Answers), m.Header)
	}
	c, err := r.guest.Dial(soon(t), netip.AddrPortFrom(Gateway, 53))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for range 3 {
		if err := writeMessage(c, query("many.example", dnsmessage.TypeA)); err != nil {
			t.Fatal(err)
		}
		b, err := readMessage(c)
		if err != nil {
			t.Fatal(err)
		}
		if m := parse(t, b); m.Truncated || len(m.Answers) != maxAnswers {
			t.Errorf("%d answers, %+v", len(m.Answers), m.Header)
		}
	}
}

func rules(tb testing.TB, texts ...string) []Rule {
	tb.Helper()
	var out []Rule
	for _, s := range texts {
		r, err := ParseRule(s)
		if err != nil {
			tb.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

// reach reports whether the guest gets a connection, and fails tb if it gets
// neither that nor a refusal.
func (r *rig) reach(tb testing.TB, to string) bool {
	tb.Helper()
	c, err := r.guest.Dial(soon(tb), ap(to))
	if err == nil {
		_ = c.Close()
		return true
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		tb.Errorf("dial %s: %v", to, err)
	}
	return false
}

func TestAllowList(t *testing.T) {
	z := newNames()
	z.set("api.example.com", "93.184.216.34", "93.184.216.35")
	z.set("a.b.example.org", "93.184.216.36")
	z.set("other.example", "93.184.216.37")
	r := start(t, func(c *Config) {
		c.Resolver = z
		c.Policy = Policy{Mode: None, Allow: rules(t, "api.example.com:443", "*.example.org", "203.0.113.0/24:25")}
	})
	for _, a := range []string{"93.184.216.34:443", "93.184.216.34:80", "93.184.216.35:443", "93.184.216.36:1", "93.184.216.37:443", "203.0.113.5:25", "203.0.113.5:80"} {
		r.world.serve(t, a, echo)
	}
	if r.reach(t, "93.184.216.34:443") {
		t.Error("an address that was not asked for is reachable")
	}
	if d := r.denial(t); d.Allow != "--allow-host 93.184.216.34" {
		t.Error(d)
	}
	r.ask(t, "api.example.com", dnsmessage.TypeA)
	r.ask(t, "a.b.example.org", dnsmessage.TypeA)
	for to, want := range map[string]bool{
		"93.184.216.34:443": true, "93.184.216.35:443": true, "93.184.216.34:80": false,
		"93.184.216.36:1": true, "93.184.216.37:443": false, "203.0.113.5:25": true, "203.0.113.5:80": false,
	} {
		if got := r.reach(t, to); got != want {
			t.Errorf("%s: reachable %t", to, got)
		}
	}
	if m := r.ask(t, "other.example", dnsmessage.TypeA); m.RCode != dnsmessage.RCodeNameError || len(m.Answers) != 0 {
		t.Errorf("%+v", m)
	}
	if d := r.denialOf(t, "dns"); d.Name != "other.example" || d.Allow != "--allow-host other.example" || !strings.HasPrefix(d.String(), "egress denied: dns other.example: ") {
		t.Error(d)
	}
	if slices.Contains(z.asked, "other.example A") {
		t.Error("a name that is not allowed was passed on")
	}
	// Names by other ways: another server, another port, another protocol.
	for _, to := range []string{"8.8.8.8:53", "8.8.8.8:853", "192.168.127.1:5353"} {
		if _, err := r.guest.Ask(soon(t), ap(to), query("other.example", dnsmessage.TypeA)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("udp %s: %v", to, err)
		}
		if r.reach(t, to) {
			t.Errorf("tcp %s", to)
		}
	}
}

func TestRebinding(t *testing.T) {
	z := newNames()
	z.set("evil.example", "93.184.216.34", "10.0.0.1", "127.0.0.1", "169.254.169.254", "8.20.30.40", "192.168.127.1")
	z.zone["evil.example AAAA"] = []dnsmessage.Resource{
		record("evil.example", 1, &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr("::ffff:127.0.0.1").As16()}),
		record("evil.example", 1, &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr("64:ff9b::a00:1").As16()}),
		record("evil.example", 1, &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr("fd00::1").As16()}),
	}
	z.set("lan.example", "10.0.0.7")
	for _, p := range []Policy{{}, {Mode: None, Allow: rules(t, "evil.example", "lan.example")}} {
		r := start(t, func(c *Config) { c.Resolver, c.Policy = z, p })
		if m := r.ask(t, "evil.example", dnsmessage.TypeA); !slices.Equal(addrs(m), []string{"93.184.216.34"}) {
			t.Errorf("%s: %v", p.Mode, addrs(m))
		}
		if m := r.ask(t, "evil.example", dnsmessage.TypeAAAA); len(m.Answers) != 0 || m.RCode != 0 {
			t.Errorf("%s: %v", p.Mode, addrs(m))
		}
		for range 8 {
			if d := r.denial(t); d.Name != "evil.example" || d.Protocol != "dns" {
				t.Error(d)
			}
		}
		if r.reach(t, "10.0.0.1:80") {
			t.Errorf("%s: a name led to the LAN", p.Mode)
		}
	}
	// What addresses are allowed, names may lead to.
	r := start(t, func(c *Config) {
		c.Resolver, c.Policy = z, Policy{Mode: None, Allow: rules(t, "lan.example", "10.0.0.0/24")}
	})
	if m := r.ask(t, "lan.example", dnsmessage.TypeA); !slices.Equal(addrs(m), []string{"10.0.0.7"}) {
		t.Errorf("%v", addrs(m))
	}
}

func TestQuestionsThatAreNone(t *testing.T) {
	s := &dnsServer{n: start(t, func(c *Config) { c.Resolver = newNames() }).Network}
	for name, b := range map[string][]byte{
		"empty": {}, "short": {1, 2, 3},
		"an answer": query("example.com", dnsmessage.TypeA, func(m *dnsmessage.Message) { m.Response = true }),
	} {
		if a := s.answer(b, true); a != nil {
			t.Errorf("%s: answered %x", name, a)
		}
	}
	for name, c := range map[string]struct {
		b    []byte
		want dnsmessage.RCode
	}{
		"two":    {query("example.com", dnsmessage.TypeA, func(m *dnsmessage.Message) { m.Questions = append(m.Questions, m.Questions[0]) }), dnsmessage.RCodeFormatError},
		"none":   {query("example.com", dnsmessage.TypeA, func(m *dnsmessage.Message) { m.Questions = nil }), dnsmessage.RCodeFormatError},
		"update": {query("example.com", dnsmessage.TypeA, func(m *dnsmessage.Message) { m.OpCode = 5 }), dnsmessage.RCodeNotImplemented},
		"chaos":  {query("version.bind", dnsmessage.TypeTXT, func(m *dnsmessage.Message) { m.Questions[0].Class = dnsmessage.ClassCHAOS }), dnsmessage.RCodeNotImplemented},
	} {
		if m := parse(t, s.answer(c.b, true)); m.RCode != c.want {
			t.Errorf("%s: %s", name, m.RCode)
		}
	}
}

func TestQuestionFlood(t *testing.T) {
	z := newNames()
	z.hold = make(chan struct{})
	r := start(t, func(c *Config) { c.Resolver, c.Limits = z, Limits{DNSRate: 100, DNSPending: 8} })
	c, err := r.guest.DialUDP(netip.AddrPortFrom(Gateway, 53))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for range 2000 {
		_, _ = c.Write(query("example.com", dnsmessage.TypeA))
	}
	for z.count.Load() < 8 {
		time.Sleep(time.Millisecond)
	}
	if err := r.guest.Ping(soon(t), Gateway); err != nil {
		t.Error(err)
	}
	if n := z.count.Load(); n != 8 {
		t.Errorf("%d questions at once", n)
	}
	close(z.hold)
	conns := 0
	for range 2 * dnsConns {
		c, err := r.guest.Dial(soon(t), netip.AddrPortFrom(Gateway, 53))
		if err != nil {
			continue
		}
		defer func() { _ = c.Close() }()
		_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			conns++
		}
	}
	if conns > dnsConns {
		t.Errorf("%d connections for questions", conns)
	}
}
