package netstack

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// nameServer answers on a UDP and a TCP port of this host.
type nameServer struct {
	udp, tcp string
	asked    atomic.Int64
}

// serveNames makes one. handle fills the answer, and returns whether to send it.
func serveNames(t *testing.T, handle func(network string, m *dnsmessage.Message) bool) *nameServer {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &nameServer{udp: pc.LocalAddr().String(), tcp: l.Addr().String()}
	answer := func(network string, b []byte) []byte {
		s.asked.Add(1)
		var m dnsmessage.Message
		if err := m.Unpack(b); err != nil {
			t.Error(err)
			return nil
		}
		m.Response, m.Additionals = true, nil
		if !handle(network, &m) {
			return nil
		}
		b, err := m.Pack()
		if err != nil {
			t.Error(err)
		}
		return b
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			if b := answer("udp", buf[:n]); b != nil {
				_, _ = pc.WriteTo(b, from)
			}
		}
	})
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if b, err := readMessage(c); err == nil {
				if b = answer("tcp", b); b != nil {
					_ = writeMessage(c, b)
				}
			}
			_ = c.Close()
		}
	})
	t.Cleanup(func() {
		_ = errors.Join(pc.Close(), l.Close())
		wg.Wait()
	})
	return s
}

// hostWith returns a resolver of a host whose name servers these are.
func hostWith(t *testing.T, servers ...*nameServer) *hostResolver {
	t.Helper()
	path := filepath.Join(t.TempDir(), "resolv.conf")
	at := map[string]*nameServer{}
	lines := []string{"options timeout:1 attempts:1"}
	for i, s := range servers {
		a := netip.AddrFrom4([4]byte{10, 255, 0, byte(i)})
		at[netip.AddrPortFrom(a, 53).String()] = s
		lines = append(lines, "nameserver "+a.String())
	}
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	return &hostResolver{path: path, dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		to := at[addr].udp
		if network == "tcp" {
			to = at[addr].tcp
		}
		return new(net.Dialer).DialContext(ctx, network, to)
	}}
}

func answerWith(addr string) func(string, *dnsmessage.Message) bool {
	return func(_ string, m *dnsmessage.Message) bool {
		m.Answers = []dnsmessage.Resource{record("example.com", 60, &dnsmessage.AResource{A: netip.MustParseAddr(addr).As4()})}
		return true
	}
}

var exampleA = dnsmessage.Question{Name: toName("example.com"), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}

func TestHostResolver(t *testing.T) {
	silent := serveNames(t, func(string, *dnsmessage.Message) bool { return false })
	broken := serveNames(t, func(_ string, m *dnsmessage.Message) bool { m.RCode = dnsmessage.RCodeServerFailure; return true })
	good := serveNames(t, answerWith("93.184.216.34"))
	r := hostWith(t, silent, broken, good)
	for i := range 3 {
		m, err := r.Resolve(soon(t), exampleA)
		if err != nil || !slices.Equal(addrs(m), []string{"93.184.216.34"}) {
			t.Errorf("%d: %v, %v", i, addrs(m), err)
		}
	}
	if silent.asked.Load() != 1 || broken.asked.Load() != 1 || good.asked.Load() != 3 {
		t.Errorf("asked %d, %d, %d times: the one that answers should be asked first", silent.asked.Load(), broken.asked.Load(), good.asked.Load())
	}
	if _, err := hostWith(t, broken).Resolve(soon(t), exampleA); err == nil || !strings.Contains(err.Error(), "ServerFailure") {
		t.Errorf("no server that knows: %v", err)
	}
	cause := errors.New("the guest has gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if _, err := hostWith(t, silent, silent).Resolve(ctx, exampleA); !errors.Is(err, cause) {
		t.Errorf("%v", err)
	}
}

func TestNoSuchName(t *testing.T) {
	s := serveNames(t, func(_ string, m *dnsmessage.Message) bool { m.RCode = dnsmessage.RCodeNameError; return true })
	other := serveNames(t, answerWith("93.184.216.34"))
	m, err := hostWith(t, s, other).Resolve(soon(t), exampleA)
	if err != nil || m.RCode != dnsmessage.RCodeNameError || other.asked.Load() != 0 {
		t.Errorf("%s, %v, the other was asked %d times", m.RCode, err, other.asked.Load())
	}
}

func TestTruncatedIsAskedOverTCP(t *testing.T) {
	s := serveNames(t, func(network string, m *dnsmessage.Message) bool {
		if network == "udp" {
			m.Truncated = true
			return true
		}
		return answerWith("93.184.216.35")(network, m)
	})
	m, err := hostWith(t, s).Resolve(soon(t), exampleA)
	if err != nil || !slices.Equal(addrs(m), []string{"93.184.216.35"}) {
		t.Errorf("%v, %v", addrs(m), err)
	}
}

// Answers to other questions, or with another number, are not answers.
func TestForgedAnswers(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			return
		}
		for _, forge := range []func(*dnsmessage.Message){
			func(m *dnsmessage.Message) { m.ID++ },
			func(m *dnsmessage.Message) { m.Questions[0].Name = toName("other.example") },
			func(m *dnsmessage.Message) { m.Questions[0].Type = dnsmessage.TypeAAAA },
			func(m *dnsmessage.Message) { m.Response = false },
			func(m *dnsmessage.Message) { m.Questions = nil },
			func(m *dnsmessage.Message) { answerWith("93.184.216.34")("udp", m) },
		} {
			var m dnsmessage.Message
			_ = m.Unpack(buf[:n])
			m.Response, m.Additionals = true, nil
			answerWith("6.6.6.6")("udp", &m)
			forge(&m)
			b, _ := m.Pack()
			_, _ = pc.WriteTo(b, from)
		}
	}()
	m, err := hostWith(t, &nameServer{udp: pc.LocalAddr().String()}).Resolve(soon(t), exampleA)
	if err != nil || !slices.Equal(addrs(m), []string{"93.184.216.34"}) {
		t.Errorf("%v, %v", addrs(m), err)
	}
	_ = pc.Close()
	<-done
}

func TestParseConf(t *testing.T) {
	for text, want := range map[string]conf{
		"": {nil, 3 * time.Second, 2},
		"# x\n; y\nnameserver 127.0.0.53\nsearch a b\noptions edns0 timeout:1 attempts:3 rotate\n": {[]netip.AddrPort{ap("127.0.0.53:53")}, time.Second, 3},
		"nameserver ::1 # local\nnameserver nonsense\nnameserver\noptions timeout:99 attempts:0 timeout:x": {
			[]netip.AddrPort{netip.MustParseAddrPort("[::1]:53")}, 5 * time.Second, 1,
		},
		"nameserver 1.1.1.1\nnameserver 1.1.1.2\nnameserver 1.1.1.3\nnameserver 1.1.1.4": {
			[]netip.AddrPort{ap("1.1.1.1:53"), ap("1.1.1.2:53"), ap("1.1.1.3:53")}, 3 * time.Second, 2,
		},
	} {
		if got := parseConf(text); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, want %+v", text, got, want)
		}
	}
}

// A host that moves to another network has another resolv.conf.
func TestConfChanges(t *testing.T) {
	r := hostWith(t, serveNames(t, answerWith("93.184.216.34")))
	if c, _ := r.servers(); len(c.servers) != 1 {
		t.Errorf("%+v", c)
	}
	if err := os.WriteFile(r.path, []byte("nameserver 10.255.0.7\nnameserver 10.255.0.8\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(r.path, time.Time{}, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if c, _ := r.servers(); len(c.servers) != 1 {
		t.Errorf("looked again at once: %+v", c)
	}
	r.checked = time.Now().Add(-2 * confAge)
	if c, _ := r.servers(); len(c.servers) != 2 {
		t.Errorf("%+v", c)
	}
	_ = os.Remove(r.path)
	r.checked = time.Now().Add(-2 * confAge)
	if c, _ := r.servers(); len(c.servers) != 0 {
		t.Errorf("%+v", c)
	}
}

// Where there is no resolv.conf the system is asked.
func TestSystemResolver(t *testing.T) {
	bodies := map[dnsmessage.Type]dnsmessage.ResourceBody{
		dnsmessage.TypeA:    &dnsmessage.AResource{A: [4]byte{93, 184, 216, 34}},
		dnsmessage.TypeAAAA: &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr("2606:2800::1").As16()},
		dnsmessage.TypeMX:   &dnsmessage.MXResource{Pref: 5, MX: toName("mx.example.com")},
		dnsmessage.TypeNS:   &dnsmessage.NSResource{NS: toName("ns.example.com")},
		dnsmessage.TypeTXT:  &dnsmessage.TXTResource{TXT: []string{strings.Repeat("t", 255), "u"}},
		dnsmessage.TypeSRV:  &dnsmessage.SRVResource{Priority: 1, Weight: 2, Port: 3, Target: toName("srv.example.com")},
		dnsmessage.TypePTR:  &dnsmessage.PTRResource{PTR: toName("example.com")},
	}
	s := serveNames(t, func(_ string, m *dnsmessage.Message) bool {
		q := m.Questions[0]
		body, ok := bodies[q.Type]
		if !ok || strings.HasPrefix(canonical(q.Name), "nowhere") {
			m.RCode = dnsmessage.RCodeNameError
			return true
		}
		m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 9}, Body: body}}
		return true
	})
	r := &hostResolver{path: filepath.Join(t.TempDir(), "none"), system: &net.Resolver{
		PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			to := s.udp
			if strings.HasPrefix(network, "tcp") {
				to = s.tcp
			}
			return new(net.Dialer).DialContext(ctx, network, to)
		},
	}}
	for typ, body := range bodies {
		name := "example.com"
		if typ == dnsmessage.TypePTR {
			name = "34.216.184.93.in-addr.arpa"
		}
		m, err := r.Resolve(soon(t), dnsmessage.Question{Name: toName(name), Type: typ, Class: dnsmessage.ClassINET})
		if err != nil || len(m.Answers) != 1 || !reflect.DeepEqual(m.Answers[0].Body, body) {
			t.Errorf("%s: %+v, %v", typ, m.Answers, err)
		}
	}
	for _, typ := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeTXT} {
		m, err := r.Resolve(soon(t), dnsmessage.Question{Name: toName("nowhere.example"), Type: typ, Class: dnsmessage.ClassINET})
		if err != nil || m.RCode != dnsmessage.RCodeNameError {
			t.Errorf("%s: %s, %v", typ, m.RCode, err)
		}
	}
	if m, err := r.Resolve(soon(t), dnsmessage.Question{Name: toName("example.com"), Type: dnsmessage.TypeSOA, Class: dnsmessage.ClassINET}); err != nil || len(m.Answers) != 0 {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestReverse(t *testing.T) {
	for name, want := range map[string]string{
		"34.216.184.93.in-addr.arpa": "93.184.216.34",
		"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa": "2001:db8::1",
		"216.184.93.in-addr.arpa": "", "x.216.184.93.in-addr.arpa": "", "1.ip6.arpa": "", "example.com": "",
	} {
		if got, ok := reverse(name); ok != (want != "") || ok && got.String() != want {
			t.Errorf("%s: %s, %t", name, got, ok)
		}
	}
}
