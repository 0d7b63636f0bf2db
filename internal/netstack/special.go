package netstack

import (
	"net/netip"
)

// grade says how much it takes to allow an address.
type grade uint8

const (
	// global addresses are the public internet.
	global grade = iota
	// local addresses are somebody's own network: mode All allows them.
	local
	// machine addresses mean the host itself, its link, or what hands out credentials
	// there: only a rule for addresses within the range allows them.
	machine
	// never is what no connection can be forwarded to.
	never
)

// special is a range of addresses that are not simply the public internet.
type special struct {
	prefix netip.Prefix
	name   string
	grade  grade
}

// specials is what the IANA special-purpose address registries
// (https://www.iana.org/assignments/iana-ipv4-special-registry and
// iana-ipv6-special-registry) do not call globally reachable, and multicast. Of
// ranges that overlap the narrower stands first. Forms of IPv6 that carry an IPv4
// address are judged by that one: see embedded.
var specials = []special{
	at("0.0.0.0/8", "this network", machine), // to connect to 0.0.0.0 is to connect to loopback
	at("10.0.0.0/8", "private", local),
	at("100.64.0.0/10", "shared by carriers", local),
	at("127.0.0.0/8", "loopback", machine),
	at("169.254.0.0/16", "link-local, with the metadata of clouds", machine),
	at("172.16.0.0/12", "private", local),
	at("192.0.0.9/32", "port control anycast", global),
	at("192.0.0.10/32", "relay anycast", global),
	at("192.0.0.0/24", "protocol assignments", local),
	at("192.0.2.0/24", "documentation", local),
	at("192.88.99.0/24", "6to4 relays", local),
	at("192.168.0.0/16", "private", local),
	at("198.18.0.0/15", "benchmarks", local),
	at("198.51.100.0/24", "documentation", local),
	at("203.0.113.0/24", "documentation", local),
	at("224.0.0.0/4", "multicast", never),
	at("255.255.255.255/32", "broadcast", never),
	at("240.0.0.0/4", "reserved", local),

	at("::1/128", "loopback", machine),
	at("::/128", "unspecified", machine), // loopback again
	at("::/96", "IPv4-compatible", machine),
	at("::ffff:0:0:0/96", "IPv4-translated", machine),
	at("64:ff9b:1::/48", "local translation", local),
	at("64:ff9b::/96", "translation to IPv4", local), // whatever translates it is the host's network's
	at("100::/64", "discarded", local),
	at("100:0:0:1::/64", "dummy", local),
	at("2001:1::1/128", "port control anycast", global),
	at("2001:1::2/128", "relay anycast", global),
	at("2001:1::3/128", "service registration anycast", global),
	at("2001:3::/32", "AMT", global),
	at("2001:4:112::/48", "AS112", global),
	at("2001:20::/28", "ORCHIDv2", global),
	at("2001:30::/28", "drone identifiers", global),
	at("2001:db8::/32", "documentation", local),
	at("2001::/23", "protocol assignments", local), // Teredo's 2001::/32 with them
	at("2002::/16", "6to4", local),
	at("2620:4f:8000::/48", "AS112", global),
	at("3fff::/20", "documentation", local),
	at("5f00::/16", "segment routing", local),
	at("fc00::/7", "private", local),
	at("fe80::/10", "link-local", machine),
	at("fec0::/10", "site-local", local),
	at("ff00::/8", "multicast", never),
}

func at(prefix, name string, g grade) special {
	return special{netip.MustParsePrefix(prefix), name, g}
}

// ranges that carry an IPv4 address, beside the mapped one that netip knows.
var (
	nat64  = netip.MustParsePrefix("64:ff9b::/96") // in the last four bytes
	sixTo4 = netip.MustParsePrefix("2002::/16")    // in bytes 2 to 5
	teredo = netip.MustParsePrefix("2001::/32")    // in the last four bytes, inverted
)

// embedded returns the IPv4 address that a carries, if it is of such a form.
func embedded(a netip.Addr) (netip.Addr, bool) {
	b := a.As16()
	switch {
	case a.Is4In6():
		return a.Unmap(), true
	case nat64.Contains(a):
		return netip.AddrFrom4([4]byte(b[12:])), true
	case sixTo4.Contains(a):
		return netip.AddrFrom4([4]byte(b[2:6])), true
	case teredo.Contains(a):
		return netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]}), true
	default:
		return netip.Addr{}, false
	}
}

// gradeOf returns the range that decides about a. Of an address within an address
// the stricter of both does.
func gradeOf(a netip.Addr) special {
	a = a.WithZone("")
	outer := special{netip.PrefixFrom(a, a.BitLen()), "public", global}
	for _, s := range specials {
		if s.prefix.Contains(a) {
			outer = s
			break
		}
	}
	if inner, ok := embedded(a); ok {
		if s := gradeOf(inner); s.grade > outer.grade {
			s.prefix = netip.PrefixFrom(a, a.BitLen()) // a rule has to name the form it means
			return s
		}
	}
	return outer
}

// gradeOf returns the range that decides about a on this host: public addresses on its own
// links are its own network.
func (n *Network) gradeOf(a netip.Addr) special {
	s := gradeOf(a)
	if s.grade == global {
		if link, ok := n.host.near(a); ok {
			return special{link, "the network of this host", local}
		}
	}
	return s
}
