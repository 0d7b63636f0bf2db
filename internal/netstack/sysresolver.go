package netstack

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// systemTTL is what answers have that come without, in seconds.
const systemTTL = 60

// askSystem answers q with the lookups of package net.
func askSystem(ctx context.Context, r *net.Resolver, q dnsmessage.Question) (dnsmessage.Message, error) {
	bodies, err := lookup(ctx, r, q)
	if e, ok := errors.AsType[*net.DNSError](err); ok && e.IsNotFound {
		// The system does not tell a name without such records from no name at all.
		return dnsmessage.Message{Header: dnsmessage.Header{RCode: dnsmessage.RCodeNameError}}, nil
	}
	var m dnsmessage.Message
	for _, b := range bodies {
		m.Answers = append(m.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: systemTTL}, Body: b,
		})
	}
	return m, err
}

// lookup returns the records that q asks for.
func lookup(ctx context.Context, r *net.Resolver, q dnsmessage.Question) ([]dnsmessage.ResourceBody, error) {
	name := q.Name.String() // with its final dot, so that nothing is searched
	switch q.Type {         //nolint:exhaustive // the rest has no lookup
	case dnsmessage.TypeA:
		addrs, err := r.LookupNetIP(ctx, "ip4", name)
		return each(addrs, err, func(a netip.Addr) dnsmessage.ResourceBody { return &dnsmessage.AResource{A: a.Unmap().As4()} })
	case dnsmessage.TypeAAAA:
		addrs, err := r.LookupNetIP(ctx, "ip6", name)
		return each(addrs, err, func(a netip.Addr) dnsmessage.ResourceBody { return &dnsmessage.AAAAResource{AAAA: a.As16()} })
	case dnsmessage.TypeCNAME:
		cname, err := r.LookupCNAME(ctx, name)
		if strings.EqualFold(cname, name) {
			return nil, err
		}
		return each([]string{cname}, err, func(s string) dnsmessage.ResourceBody { return &dnsmessage.CNAMEResource{CNAME: toName(s)} })
	case dnsmessage.TypePTR:
		addr, ok := reverse(canonical(q.Name))
		if !ok {
			return nil, nil
		}
		names, err := r.LookupAddr(ctx, addr.String())
		return each(names, err, func(s string) dnsmessage.ResourceBody { return &dnsmessage.PTRResource{PTR: toName(s)} })
	case dnsmessage.TypeMX:
		mxs, err := r.LookupMX(ctx, name)
		return each(mxs, err, func(m *net.MX) dnsmessage.ResourceBody {
			return &dnsmessage.MXResource{Pref: m.Pref, MX: toName(m.Host)}
		})
	case dnsmessage.TypeNS:
		nss, err := r.LookupNS(ctx, name)
		return each(nss, err, func(n *net.NS) dnsmessage.ResourceBody { return &dnsmessage.NSResource{NS: toName(n.Host)} })
	case dnsmessage.TypeTXT:
		txts, err := r.LookupTXT(ctx, name)
		return each(txts, err, func(s string) dnsmessage.ResourceBody { return &dnsmessage.TXTResource{TXT: chunks(s)} })
	case dnsmessage.TypeSRV:
		_, srvs, err := r.LookupSRV(ctx, "", "", name)
		return each(srvs, err, func(s *net.SRV) dnsmessage.ResourceBody {
			return &dnsmessage.SRVResource{Priority: s.Priority, Weight: s.Weight, Port: s.Port, Target: toName(s.Target)}
		})
	default:
		return nil, nil // there are none that the system would tell
	}
}

func each[T any](list []T, err error, body func(T) dnsmessage.ResourceBody) ([]dnsmessage.ResourceBody, error) {
	bodies := make([]dnsmessage.ResourceBody, 0, len(list))
	if err != nil {
		return bodies, err
	}
	for _, x := range list {
		bodies = append(bodies, body(x))
	}
	return bodies, nil
}

// chunks cuts a text into the strings of a TXT record.
func chunks(s string) []string {
	var out []string
	for len(s) > 255 {
		out, s = append(out, s[:255]), s[255:]
	}
	return append(out, s)
}

// toName returns s as a name; one that is too long becomes the root.
func toName(s string) dnsmessage.Name {
	if !strings.HasSuffix(s, ".") {
		s += "."
	}
	n, err := dnsmessage.NewName(s)
	if err != nil {
		return dnsmessage.MustNewName(".")
	}
	return n
}

// canonical returns a name in lower case, without its final dot.
func canonical(n dnsmessage.Name) string {
	return strings.ToLower(strings.TrimSuffix(n.String(), "."))
}

// reverse returns the address that a name below in-addr.arpa or ip6.arpa stands for.
func reverse(name string) (netip.Addr, bool) {
	if digits, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		p := strings.Split(digits, ".")
		if len(p) != 4 {
			return netip.Addr{}, false
		}
		a, err := netip.ParseAddr(p[3] + "." + p[2] + "." + p[1] + "." + p[0])
		return a, err == nil
	}
	digits, ok := strings.CutSuffix(name, ".ip6.arpa")
	if !ok || len(digits) != 63 {
		return netip.Addr{}, false
	}
	var b strings.Builder
	for i := 31; i >= 0; i-- {
		b.WriteByte(digits[2*i])
		if i%4 == 0 && i > 0 {
			b.WriteByte(':')
		}
	}
	a, err := netip.ParseAddr(b.String())
	return a, err == nil
}
