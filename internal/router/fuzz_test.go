package router

import (
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/xfeldman/aegisvm/internal/instance"
)

// FuzzRequest: a request under any name, from any page, reaches an exposed port of an
// instance or none; and under a name that is not this host's it reaches none.
func FuzzRequest(f *testing.F) {
	for _, s := range [][3]string{
		{"web.localhost:8099", "", ""},
		{"80-web.localhost", "http://web.localhost", ""},
		{"[::1]:8099", "null", "web"},
		{"127.0.0.1", "http://evil.example", "inst-web"},
		{"127.0.0.1.evil.example", "", "web"},
		{"localhost.evil.example:80", "", "web"},
		{"evil.example#.localhost", "http://localhost@evil.example", ""},
		{"\x00.localhost", "http://[::1", ""},
		{"LOCALHOST.", "http://2130706433/", ""},
	} {
		f.Add(s[0], s[1], s[2])
	}
	s := &stubInstances{}
	s.add("web", tcp(5432), http80(80))
	s.add("bare")
	front := NewFront(s, nil)
	f.Fuzz(func(t *testing.T, host, origin, ref string) {
		r := &http.Request{Method: http.MethodGet, Host: host, URL: &url.URL{Path: "/"}, Header: http.Header{}}
		if origin != "" {
			r.Header.Set("Origin", origin)
		}
		r.Header.Set(InstanceHeader, ref)
		if local(r) == nil {
			if !ours("//"+host) && host != "" || !ours(origin) && origin != "" {
				t.Fatalf("host %q and origin %q are taken for local", host, origin)
			}
		}
		v, port, err := front.find(r)
		if err == nil && !slices.ContainsFunc(v.Spec.Expose, func(e instance.Expose) bool { return e.Guest == port }) {
			t.Fatalf("host %q and reference %q lead to port %d of %q", host, ref, port, v.Spec.Handle)
		}
	})
}

// ours tells, by what browsers make of an address, whether it may be this host's.
func ours(address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return !strings.Contains(address, ".example") // a name that no browser asks for
	}
	name := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	addr, err := netip.ParseAddr(name)
	return name == "localhost" || strings.HasSuffix(name, ".localhost") || err == nil && addr.IsLoopback()
}
