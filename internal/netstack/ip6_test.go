package netstack

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const site6 = "2606:2800:21f::1"

// TestTCP6: a connection of IPv6 is one like another.
func TestTCP6(t *testing.T) {
	r := start(t)
	r.world.serve(t, "["+site6+"]:80", echo)
	c, err := r.guest.Dial(soon(t), ap("["+site6+"]:80"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
	if got := r.Traffic(); got.Opened != 1 || got.In.Bytes < 5 || got.Out.Bytes < 5 {
		t.Errorf("%+v", got)
	}
	if _, err := r.guest.Dial(soon(t), ap("["+site6+"]:81")); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("nobody listens: %v", err)
	}
}

// TestPolicy6: the rules are those of IPv4, and the refusals as fast.
func TestPolicy6(t *testing.T) {
	denied := []string{
		"fd00::1", "fe80::1", "64:ff9b::5db8:d822", "64:ff9b::a00:1", "2001:db8::1", "2002:a00:1::1", "::1", "fd61:6567:6973::1",
		"fd61:6567:6973::7", "2a02:b0b::9", "2a00:1450::1",
	}
	r := start(t, func(c *Config) {
		c.HostAddrs = func() ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("2a00:1450::1")}, nil }
	})
	for _, a := range denied {
		begun := time.Now()
		if a == "::1" || a == "fe80::1" { // the guest's stack does not route these
			if d, ok := r.judge(netip.AddrPortFrom(netip.MustParseAddr(a), 80), nil); ok || d.Reason == "" {
				t.Errorf("%s is allowed", a)
			}
			continue
		}
		r.world.put("tcp", "["+a+"]:80", "127.0.0.1:1")
		if _, err := r.guest.Dial(soon(t), netip.AddrPortFrom(netip.MustParseAddr(a), 80)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: %v", a, err)
		}
		if d := r.denial(t); d.Addr.String() != a || time.Since(begun) > patience/2 {
			t.Errorf("%s: %v", a, d)
		}
	}
	if got := r.world.dialed(); len(got) != 0 {
		t.Errorf("dialed %q", got)
	}
	open := start(t, func(c *Config) { c.Policy = Policy{Mode: None, Allow: rules(t, "[fd00::/8]:80")} })
	open.world.serve(t, "[fd00::1]:80", echo)
	if _, err := open.guest.Dial(soon(t), ap("[fd00::1]:80")); err != nil {
		t.Errorf("by a rule: %v", err)
	}
	if _, err := open.guest.Dial(soon(t), ap("["+site6+"]:80")); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("without a rule: %v", err)
	}
}

// TestUDP6: datagrams there and back, and refusals.
func TestUDP6(t *testing.T) {
	r := start(t)
	out, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	r.world.put("udp", "["+site6+"]:7", out.LocalAddr().String())
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 2000)
		n, from, err := out.ReadFrom(b)
		if err == nil {
			_, _ = out.WriteTo(b[:n], from)
		}
	}()
	if b, err := r.guest.Ask(soon(t), ap("["+site6+"]:7"), []byte("hello")); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
	<-done
	for _, to := range []string{"[fd00::1]:7", "[" + site6 + "]:8"} { // denied; and nobody there
		if _, err := r.guest.Ask(soon(t), ap(to), []byte("hello")); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: %v", to, err)
		}
	}
}

// TestPing6: the gateway answers, and the world is not there.
func TestPing6(t *testing.T) {
	r := start(t)
	if err := r.guest.Ping(soon(t), Gateway6); err != nil {
		t.Error(err)
	}
	if err := r.guest.Ping(soon(t), netip.MustParseAddr(site6)); err == nil {
		t.Error("the world answers a ping")
	}
}

// TestNames6: answers of IPv6 are pinned like others, and are left out where this host has
// no way there.
func TestNames6(t *testing.T) {
	z := newNames()
	z.zone["v6.example AAAA"] = []dnsmessage.Resource{
		record("v6.example", 60, &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr(site6).As16()}),
		record("v6.example", 60, &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr("fd00::1").As16()}),
		record("v6.example", 60, &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr("64:ff9b::808:808").As16()}),
		record("v6.example", 60, &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr("2a02:b0b::9").As16()}),
	}
	for _, routable := range []bool{true, false} {
		r := start(t, func(c *Config) {
			c.Resolver, c.Policy = z, Policy{Mode: None, Allow: rules(t, "v6.example")}
			c.Routable = func(netip.Addr) bool { return routable }
		})
		var want []string
		if routable {
			want = []string{site6}
		}
		if m := r.ask(t, "v6.example", dnsmessage.TypeAAAA); !slices.Equal(addrs(m), want) || m.RCode != 0 {
			t.Errorf("routable %v: %v, %v", routable, addrs(m), m.RCode)
		}
		r.world.serve(t, "["+site6+"]:80", echo)
		c, err := r.guest.Dial(soon(t), ap("["+site6+"]:80"))
		if (err == nil) != routable {
			t.Errorf("routable %v: %v", routable, err)
		}
		if err == nil {
			_ = c.Close()
		}
	}
}

// TestHasRoute: what has no way is found out without sending anything.
func TestHasRoute(t *testing.T) {
	if hasRoute(netip.MustParseAddr("fe80::1")) {
		t.Error("a link-local address without its link has a way")
	}
	if _, err := interfaceNets(); err != nil {
		t.Error(err)
	}
}
