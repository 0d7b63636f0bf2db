package netstack

import (
	"log/slog"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

func TestDenialText(t *testing.T) {
	for want, d := range map[string]Denial{
		"egress denied: tcp 10.0.0.1:80: r; o allows it":                    {Protocol: "tcp", Addr: ap("10.0.0.1:80").Addr(), Port: 80, Reason: "r", Allow: "o"},
		"egress denied: udp [fd00::1]:53 (a.example): r; o allows it":       {Protocol: "udp", Addr: netip.MustParseAddr("fd00::1"), Port: 53, Name: "a.example", Reason: "r", Allow: "o"},
		"egress denied: icmp 8.8.8.8: r":                                    {Protocol: "icmp", Addr: netip.MustParseAddr("8.8.8.8"), Reason: "r"},
		"egress denied: dns a.example: r; --allow-host a.example allows it": {Protocol: "dns", Name: "a.example", Reason: "r", Allow: "--allow-host a.example"},
	} {
		if got := d.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// The same is told once a minute, everything not faster than the limit, and the
// table stays small.
func TestDenialsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newDenials(4)
		d := Denial{Protocol: "tcp", Addr: ap("10.0.0.1:80").Addr(), Port: 80}
		for i, want := range []bool{true, false, false} {
			if got := s.fresh(d); got != want {
				t.Errorf("%d: %t", i, got)
			}
			time.Sleep(29 * time.Second)
		}
		if !s.fresh(d) {
			t.Error("not told again after a minute")
		}
		time.Sleep(time.Hour)
		told := 0
		for i := range 5000 {
			d.Port = uint16(i)
			if s.fresh(d) {
				told++
			}
		}
		if told != 20 {
			t.Errorf("%d at once", told)
		}
		for i := range 5000 {
			d.Port = uint16(i)
			time.Sleep(time.Second)
			if !s.fresh(d) && i > 20 {
				t.Fatalf("%d: not told", i)
			}
			if len(s.seen) > maxDenials {
				t.Fatalf("%d remembered", len(s.seen))
			}
		}
	})
}

// Who is slow to be told holds nothing up.
func TestSlowListener(t *testing.T) {
	stuck := make(chan struct{})
	r := start(t, func(c *Config) { c.Denied = func(Denial) { <-stuck } })
	for i := range 200 {
		if r.reach(t, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 80).String()) {
			t.Error("reached")
		}
	}
	if got := r.Traffic().Denied; got < 200 {
		t.Errorf("%d are counted", got)
	}
	close(stuck)
}

func TestPins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPins(3)
		a := func(i byte) netip.Addr { return netip.AddrFrom4([4]byte{93, 184, 216, i}) }
		p.add(a(1), "x.example", time.Second)
		p.add(a(1), "y.example", 2*time.Minute)
		if got := p.names(a(1)); len(got) != 2 || got[1] != "y.example" {
			t.Error(got)
		}
		time.Sleep(minPin)
		if got := p.names(a(1)); len(got) != 1 || got[0] != "y.example" {
			t.Error(got)
		}
		p.add(a(2), "z.example", 48*time.Hour)
		time.Sleep(maxPin)
		if got := p.names(a(2)); len(got) != 0 {
			t.Error(got)
		}
		for i := range byte(10) {
			p.add(a(i), "z.example", time.Hour)
		}
		if len(p.byIP) != 3 || p.order.Len() != 3 || len(p.names(a(9))) != 1 || len(p.names(a(6))) != 0 {
			t.Errorf("%d, %d", len(p.byIP), p.order.Len())
		}
		for i := range 20 {
			p.add(a(9), string(rune('a'+i))+".example", time.Hour)
		}
		if got := p.names(a(9)); len(got) != namesPerPin || got[namesPerPin-1] != "t.example" {
			t.Error(got)
		}
	})
}

func TestHostAddrs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		addrs := []netip.Addr{netip.MustParseAddr("::ffff:8.20.30.40"), netip.MustParseAddr("fe80::1%eth0")}
		h := &hostAddrs{list: func() ([]netip.Addr, error) { asked++; return addrs, nil }}
		for range 5 {
			for a, want := range map[string]bool{"8.20.30.40": true, "8.20.30.41": false, "fe80::1": true, "64:ff9b::814:1e28": true} {
				if got, err := h.has(netip.MustParseAddr(a)); got != want || err != nil {
					t.Errorf("%s: %t, %v", a, got, err)
				}
			}
		}
		if asked != 1 {
			t.Errorf("asked %d times", asked)
		}
		addrs = nil
		time.Sleep(hostAddrsAge + 1)
		if got, _ := h.has(netip.MustParseAddr("8.20.30.40")); got || asked != 2 {
			t.Errorf("%t, asked %d times", got, asked)
		}
	})
	own, err := interfaceAddrs()
	if err != nil || len(own) == 0 {
		t.Errorf("%v, %v", own, err)
	}
}

// The host's real addresses are refused without any configuration.
func TestRealHost(t *testing.T) {
	n, err := New(Config{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = n.Close() }()
	own, err := interfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range own {
		if d, ok := n.judge(netip.AddrPortFrom(a, 22), nil); ok {
			t.Errorf("%s is allowed", a)
		} else {
			t.Log(d)
		}
	}
}
