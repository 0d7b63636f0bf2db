package netstack

import (
	"fmt"
	"net/netip"
	"slices"
)

// judge decides whether the guest may reach dst, which has had names. If it may not,
// the Denial says why, without Protocol.
func (n *Network) judge(dst netip.AddrPort, names []string) (Denial, bool) {
	p := *n.policy.Load()
	addr := dst.Addr()
	d := Denial{Addr: addr, Port: dst.Port()}
	if len(names) > 0 {
		d.Name = names[len(names)-1]
	}
	if subnet.Contains(addr) || subnet6.Contains(addr) {
		d.Reason = "nothing else is on the network of a VM"
		if addr == Gateway || addr == Gateway6 {
			d.Reason = "nothing listens there on the gateway"
		}
		return d, false
	}
	host, err := n.host.has(addr)
	if err != nil {
		d.Reason = "the addresses of the host are not known: " + err.Error()
		return d, false
	}
	s := n.gradeOf(addr)
	if p.admits(dst, s, host, names) {
		return Denial{}, true
	}
	d.explain(p, s, host)
	return d, false
}

// admits reports whether the policy allows dst, which lies in s and has had names.
func (p Policy) admits(dst netip.AddrPort, s special, host bool, names []string) bool {
	for _, r := range p.Allow {
		if r.opens(dst, s, host) {
			return true
		}
		if s.grade == global && !host && (r.Port == 0 || r.Port == dst.Port()) && slices.ContainsFunc(names, r.matchesName) {
			return true
		}
	}
	switch p.Mode {
	case None:
		return false
	case All:
		return s.grade <= local
	case Public:
	}
	return s.grade == global && !host
}

// explain completes d: dst, in s, was not admitted by p.
func (d *Denial) explain(p Policy, s special, host bool) {
	d.Allow = "--allow-host " + d.Addr.String()
	switch {
	case s.grade == never:
		d.Reason, d.Allow = s.name+" addresses cannot be reached", ""
	case s.grade == machine:
		d.Reason = fmt.Sprintf("%s is %s", s.prefix, s.name)
	case host:
		d.Reason = "it is an address of the host"
		d.Allow += " or --egress all"
	case s.grade == local:
		d.Reason = fmt.Sprintf("%s is %s", s.prefix, s.name)
		d.Allow += " or --egress all"
	case p.Mode == None && d.Name != "":
		d.Reason = "no rule allows it"
		d.Allow = "--allow-host " + d.Name
	default:
		d.Reason = "no rule allows it"
	}
}
