package netstack

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/xfeldman/aegisvm/internal/netstack/netstacktest"
)

// notGlobal is what DESIGN and the IANA registries keep a guest from. Each range is
// tried at both ends. all tells whether mode All opens it.
var notGlobal = []struct {
	prefix string
	all    bool
}{
	{"0.0.0.0/8", false},
	{"10.0.0.0/8", true},
	{"100.64.0.0/10", true},
	{"127.0.0.0/8", false},
	{"169.254.0.0/16", false},
	{"172.16.0.0/12", true},
	{"192.0.0.0/29", true},
	{"192.0.0.170/31", true},
	{"192.0.2.0/24", true},
	{"192.168.0.0/18", true},
	{"198.18.0.0/15", true},
	{"198.51.100.0/24", true},
	{"203.0.113.0/24", true},
	{"224.0.0.0/4", false},
	{"240.0.0.0/5", true},
	{"255.255.255.255/32", false},
	{"::/128", false},
	{"::1/128", false},
	{"::7f00:1/128", false},
	{"::ffff:127.0.0.1/128", false},
	{"::ffff:10.0.0.0/104", true},
	{"::ffff:169.254.169.254/128", false},
	{"::ffff:0:7f00:1/128", false},
	{"64:ff9b::7f00:1/128", false},
	{"64:ff9b::a9fe:a9fe/128", false},
	{"64:ff9b::a00:0/104", true},
	{"64:ff9b:1::/48", true},
	{"100::/64", true},
	{"2001::/32", false},          // what it carries is inverted: 0.0.0.0 is at its end
	{"2001::f5ff:fffe/128", true}, // 10.0.0.1
	{"2001:2::/48", true},
	{"2001:10::/28", true},
	{"2001:db8::/32", true},
	{"2002:7f00:1::/48", false},
	{"2002:a9fe:a9fe::/48", false},
	{"2002:a00::/24", true},
	{"3fff::/20", true},
	{"5f00::/16", true},
	{"fc00::/7", true},
	{"fe80::/10", false},
	{"fec0::/10", true},
	{"ff00::/8", false},
}

// isGlobal is public, next to what is not.
var isGlobal = []string{
	"1.0.0.0", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0",
	"169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "191.255.255.255", "192.0.0.9", "192.0.0.10",
	"192.0.1.0", "192.0.3.0", "192.31.196.1", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0", "198.51.99.255",
	"203.0.112.255", "203.0.114.0", "223.255.255.255",
	"2606:2800::1", "2001:1::1", "2001:20::1", "2001:200::1", "2001:4860::8888", "::ffff:8.8.8.8", "fb00::1",
}

// last returns the last address of p.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func TestEveryRange(t *testing.T) {
	host := netip.MustParseAddr("8.20.30.40")
	n := &Network{pins: newPins(1), host: hostAddrs{list: func() ([]netip.Addr, error) { return []netip.Addr{host}, nil }}}
	reach := func(p Policy, a netip.Addr) bool {
		n.policy.Store(&p)
		_, ok := n.judge(netip.AddrPortFrom(a, 80), nil)
		return ok
	}
	for _, c := range notGlobal {
		p := netip.MustParsePrefix(c.prefix)
		for _, a := range []netip.Addr{p.Addr(), last(p)} {
			if reach(Policy{}, a) {
				t.Errorf("%s, of %s, is public", a, p)
			}
			if got := reach(Policy{Mode: All}, a); got != c.all {
				t.Errorf("%s, of %s: mode all reaches it: %t", a, p, got)
			}
			for _, everything := range []string{"0.0.0.0/0", "::/0"} {
				if got := reach(Policy{Mode: None, Allow: rules(t, everything)}, a); got && !c.all {
					t.Errorf("%s, of %s, is opened by %s", a, p, everything)
				}
			}
			own := Rule{Prefix: netip.PrefixFrom(a, a.BitLen())}
			never := gradeOf(a).grade == never
			if reach(Policy{Mode: None, Allow: []Rule{own}}, a) == never {
				t.Errorf("%s, of %s: its own rule: %t", a, p, never)
			}
		}
	}
	for _, s := range isGlobal {
		a := netip.MustParseAddr(s)
		if !reach(Policy{}, a) {
			t.Errorf("%s is not public", a)
		}
		if reach(Policy{Mode: None}, a) {
			t.Errorf("%s is reached without a rule", a)
		}
	}
	for _, c := range []struct {
		p    Policy
		want bool
	}{
		{Policy{}, false},
		{Policy{Mode: All}, true},
		{Policy{Mode: None, Allow: rules(t, "8.0.0.0/8")}, false},
		{Policy{Mode: None, Allow: rules(t, "8.20.30.40")}, true},
	} {
		for _, a := range []netip.Addr{host, netip.AddrFrom16(host.As16()), netip.MustParseAddr("64:ff9b::814:1e28")} {
			if got := reach(c.p, a); got != c.want && a == host || got && !c.want {
				t.Errorf("the host at %s, mode %q, %v: %t", a, c.p.Mode, c.p.Allow, got)
			}
		}
	}
}

// Every range, from a guest: TCP is reset, UDP is answered or, as RFC 1122 wants it
// of multicast, dropped.
func TestEveryRangeFromTheGuest(t *testing.T) {
	r := start(t)
	for _, c := range notGlobal {
		p := netip.MustParsePrefix(c.prefix)
		if !p.Addr().Is4() || gradeOf(p.Addr()).grade == never {
			continue
		}
		first := p.Addr()
		if first.IsUnspecified() { // which is nobody's destination
			first = first.Next()
		}
		for _, a := range []netip.Addr{first, last(p)} {
			for network, want := range map[string]netstacktest.Answer{"tcp": netstacktest.Reset, "udp": netstacktest.Unreachable} {
				if got, err := r.guest.Probe(soon(t), network, netip.AddrPortFrom(a, 80)); got != want || err != nil {
					t.Errorf("%s %s: %q, %v", network, a, got, err)
				}
				if d := r.denial(t); d.Addr != a || d.Protocol != network {
					t.Errorf("%s %s: told of %s", network, a, d)
				}
			}
		}
	}
	for _, a := range []string{"224.0.0.1", "239.255.255.250", "255.255.255.255", "192.168.127.255"} {
		if err := r.guest.Send(netstacktest.Datagram(netip.AddrPortFrom(Guest, 9), netip.AddrPortFrom(netip.MustParseAddr(a), 1900), []byte("x"))); err != nil {
			t.Fatal(err)
		}
		if d := r.denial(t); d.Addr.String() != a {
			t.Error(d)
		}
	}
	if got := r.world.dialed(); len(got) != 0 {
		t.Errorf("dialed %v", got)
	}
}

func TestUnknownHostAddresses(t *testing.T) {
	n := &Network{pins: newPins(1), host: hostAddrs{list: func() ([]netip.Addr, error) { return nil, errors.New("no netlink") }}}
	n.policy.Store(&Policy{Mode: All})
	if _, ok := n.judge(ap("93.184.216.34:80"), nil); ok {
		t.Error("who does not know the host's addresses allows them")
	}
}
