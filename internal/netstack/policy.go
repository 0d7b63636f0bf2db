package netstack

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// Mode says what a guest may reach without a rule.
type Mode string

// The modes.
const (
	// Public is the public internet: no private or otherwise special range, and no
	// address of the host. The zero Policy means this.
	Public Mode = "public"
	// None is nothing.
	None Mode = "none"
	// All is Public, and private networks and the host's own addresses on them. The
	// host's loopback, its link-local neighbours and the metadata service of clouds are
	// not part of it.
	All Mode = "all"
)

// Policy is what a guest may reach: what its mode allows, and what any rule does.
type Policy struct {
	Mode  Mode
	Allow []Rule
}

// Rule allows destinations: by name or by address, at one port or at all.
//
// A rule for a name allows the public addresses that the guest's own questions for
// that name were answered with, for as long as the answers are valid. It allows no
// private ones: whoever owns a name chooses its addresses.
//
// A rule for addresses allows private ranges that it touches. The host's own
// addresses it allows only one by one, as /32 or /128, and loopback and link-local
// addresses only if it lies within that range: 0.0.0.0/0 does not open the host.
type Rule struct {
	Name   string       // "example.com", or "*.example.com" for every name below; "" for a rule by address
	Prefix netip.Prefix // of a rule by address
	Port   uint16       // 0 for all
}

// ParseRule reads a rule as people write it: a name, an address or a prefix, each
// with a port or without: "example.com", "*.example.com:443", "10.1.2.3",
// "10.0.0.0/8:5432", "fd00::/8", "[fd00::1]:443". Names are taken in lower case, those of
// other scripts as IDNA writes them in ASCII. Errors are fault.Invalid.
func ParseRule(s string) (Rule, error) {
	host, port, err := splitPort(s)
	if err != nil {
		return Rule{}, badRule(s, err.Error())
	}
	r := Rule{Port: port}
	if prefix, err := netip.ParsePrefix(host); err == nil {
		if prefix != prefix.Masked() {
			return Rule{}, badRule(s, "bits are set beyond the prefix's length").WithHint("say %s", prefix.Masked())
		}
		r.Prefix = prefix
		return r, nil
	}
	if addr, err := netip.ParseAddr(host); err == nil && addr.Zone() == "" {
		r.Prefix = netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen())
		return r, nil
	}
	r.Name = strings.ToLower(strings.TrimSuffix(host, "."))
	if !validName(strings.TrimPrefix(r.Name, "*.")) {
		return Rule{}, badRule(s, "this is no name, address or prefix")
	}
	return r, nil
}

func badRule(s, why string) *fault.Error {
	return fault.New(fault.Invalid, "rule %q: %s", s, why).
		WithHint(`rules look like example.com, "*.example.com", example.com:443, 10.0.0.5 or 10.0.0.0/8`)
}

// splitPort cuts a port off s, which may be an IPv6 address without one.
func splitPort(s string) (host string, port uint16, err error) {
	var p string
	switch {
	case strings.HasPrefix(s, "["):
		var ok bool
		if host, p, ok = strings.Cut(s[1:], "]"); !ok || p != "" && p[0] != ':' {
			return "", 0, errors.New("the brackets do not match")
		}
		p = strings.TrimPrefix(p, ":")
		if p == "" {
			return host, 0, nil
		}
	case strings.Count(s, ":") == 1:
		host, p, _ = strings.Cut(s, ":")
	default:
		return s, 0, nil
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil || n == 0 {
		return "", 0, fmt.Errorf("%q is no port", p)
	}
	return host, uint16(n), nil
}

// validName reports whether s is a host name in ASCII, underscores allowed.
func validName(s string) bool {
	if len(s) == 0 || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	// What ends in a number is an address that somebody mistyped.
	last := s[strings.LastIndexByte(s, '.')+1:]
	_, err := strconv.Atoi(last)
	return err != nil
}

// String returns the rule as ParseRule reads it.
func (r Rule) String() string {
	host := r.Name
	if host == "" {
		host = r.Prefix.String()
		if r.Prefix.IsSingleIP() {
			host = r.Prefix.Addr().String()
		}
		if r.Port != 0 && r.Prefix.Addr().Is6() {
			host = "[" + host + "]"
		}
	}
	if r.Port != 0 {
		host += ":" + strconv.Itoa(int(r.Port))
	}
	return host
}

// matchesName reports whether the rule is for name, which is in lower case without
// a trailing dot.
func (r Rule) matchesName(name string) bool {
	if r.Name == "" {
		return false
	}
	if suffix, ok := strings.CutPrefix(r.Name, "*"); ok {
		return len(name) > len(suffix) && strings.HasSuffix(name, suffix)
	}
	return name == r.Name
}

// opens reports whether a rule by address allows dst, which is in the range s and,
// if host is set, an address of the host.
func (r Rule) opens(dst netip.AddrPort, s special, host bool) bool {
	if r.Name != "" || !r.Prefix.Contains(dst.Addr()) || r.Port != 0 && r.Port != dst.Port() {
		return false
	}
	switch {
	case s.grade == never:
		return false
	case s.grade == machine:
		return r.Prefix.Bits() >= s.prefix.Bits()
	case host:
		return r.Prefix.IsSingleIP()
	default:
		return true
	}
}

// allowsName reports whether p lets the guest ask for name.
func (p Policy) allowsName(name string) bool {
	return p.Mode != None || slices.ContainsFunc(p.Allow, func(r Rule) bool { return r.matchesName(name) })
}

// clone returns a copy that nobody else changes.
func (p Policy) clone() *Policy { return &Policy{p.Mode, slices.Clone(p.Allow)} }

// check returns an error if p is not a policy.
func (p Policy) check() error {
	switch p.Mode {
	case "", Public, None, All:
	default:
		return fault.New(fault.Invalid, "egress mode %q", string(p.Mode)).WithHint("the modes are none, public and all")
	}
	for _, r := range p.Allow {
		if (r.Name == "") != r.Prefix.IsValid() {
			return fault.New(fault.Invalid, "a rule is for a name or for addresses")
		}
	}
	return nil
}
