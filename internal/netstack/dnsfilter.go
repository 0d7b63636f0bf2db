package netstack

import (
	"net/netip"
	"slices"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// maxAnswers is how many addresses of one answer are passed on.
const maxAnswers = 64

// maxChain is how many aliases in the wrong order are followed.
const maxChain = 16

// sift returns the records that answer q, without addresses that the guest may not
// reach: a name that somebody else owns must not lead to the host's own network
// (rebinding). The addresses it leaves are pinned to the name that was asked for.
func (n *Network) sift(p Policy, q dnsmessage.Question, answers []dnsmessage.Resource) []dnsmessage.Resource {
	name := canonical(q.Name)
	owners := chain(name, answers)
	var kept []dnsmessage.Resource
	addresses := 0
	for _, r := range answers {
		if !owners[canonical(r.Header.Name)] {
			continue
		}
		var addr netip.Addr
		switch body := r.Body.(type) {
		case *dnsmessage.AResource:
			addr = netip.AddrFrom4(body.A)
		case *dnsmessage.AAAAResource:
			addr = netip.AddrFrom16(body.AAAA)
		}
		if addr.IsValid() {
			if addresses++; addresses > maxAnswers || !n.answerable(p, name, addr) || addr.Is6() && !n.routable(addr) {
				continue
			}
			r.Header.TTL = min(r.Header.TTL, uint32(maxPin/time.Second))
			n.pins.add(addr.Unmap(), name, time.Duration(r.Header.TTL)*time.Second)
		} else if p.Mode == None && (r.Header.Type == dnsmessage.TypeSVCB || r.Header.Type == dnsmessage.TypeHTTPS) {
			continue // these carry addresses that would not be pinned
		}
		kept = append(kept, r)
	}
	return kept
}

// chain returns name and the names that it is an alias of.
func chain(name string, answers []dnsmessage.Resource) map[string]bool {
	owners := map[string]bool{name: true}
	for range maxChain {
		grown := false
		for _, r := range answers {
			c, ok := r.Body.(*dnsmessage.CNAMEResource)
			if ok && owners[canonical(r.Header.Name)] && !owners[canonical(c.CNAME)] {
				owners[canonical(c.CNAME)] = true
				grown = true
			}
		}
		if !grown {
			break
		}
	}
	return owners
}

// answerable reports whether addr may be part of an answer to the guest, and tells of
// it if not.
func (n *Network) answerable(p Policy, name string, addr netip.Addr) bool {
	host, err := n.host.has(addr)
	s := n.gradeOf(addr)
	switch {
	case subnet.Contains(addr.Unmap()), subnet6.Contains(addr), err != nil:
	case s.grade == global && !host, p.Mode == All && s.grade <= local:
		return true
	default:
		if slices.ContainsFunc(p.Allow, func(r Rule) bool { return r.opens(netip.AddrPortFrom(addr.Unmap(), r.Port), s, host) }) {
			return true
		}
	}
	d := Denial{Protocol: "dns", Name: name, Addr: addr}
	d.explain(p, s, host)
	n.deny(d)
	return false
}

// nameable reports whether the guest may know the names of addr.
func (n *Network) nameable(p Policy, addr netip.Addr) bool {
	host, err := n.host.has(addr)
	g := n.gradeOf(addr).grade
	return err == nil && (g == global && !host || p.Mode == All && g <= local)
}
