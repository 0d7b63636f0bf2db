package router

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
)

// InstanceHeader names the instance that a request is for, by id or handle.
const InstanceHeader = "X-Aegis-Instance"

// local refuses requests under a name that is not this host's, and from pages of sites
// that are not: a web site whose name suddenly means 127.0.0.1 must not reach an
// instance, and no other must wake one.
func local(r *http.Request) error {
	if r.Host != "" && !isLocal(r.Host) { // HTTP/1.0 may do without; browsers do not
		return fault.New(fault.Denied, "%q is not a name of this host", r.Host).
			WithHint("ask for HANDLE.localhost, or for 127.0.0.1 with the header " + InstanceHeader)
	}
	for _, page := range pagesOf(r) {
		if u, err := url.Parse(page); err != nil || !isLocal(u.Host) {
			return fault.New(fault.Denied, "pages of %q may not ask instances", page).
				WithHint("a public port takes them: aegis instance expose")
		}
	}
	return nil
}

// pagesOf returns the origin of the page that makes a request, as far as browsers tell.
// Links are followed from anywhere.
func pagesOf(r *http.Request) []string {
	h := r.Header
	if from := h.Values("Origin"); len(from) > 0 {
		return from
	}
	if h.Get("Sec-Fetch-Site") == "cross-site" && h.Get("Sec-Fetch-Mode") != "navigate" {
		return []string{h.Get("Referer")} // of images and scripts, which have no Origin
	}
	return nil
}

func isLocal(hostport string) bool {
	name := hostOf(hostport)
	if addr, err := netip.ParseAddr(name); err == nil {
		return addr.IsLoopback()
	}
	return name == "localhost" || strings.HasSuffix(name, ".localhost")
}

// hostOf returns the name in a Host header, in lower case and without a port.
func hostOf(hostport string) string {
	name, _, err := net.SplitHostPort(hostport)
	if err != nil {
		name = strings.TrimSuffix(strings.TrimPrefix(hostport, "["), "]")
	}
	return strings.TrimSuffix(strings.ToLower(name), ".")
}

// find returns the instance that a request is for, and the port of its guest.
func (f *Front) find(r *http.Request) (instance.View, uint16, error) {
	list := f.instances.List()
	if ref := r.Header.Get(InstanceHeader); ref != "" {
		return portOf(named(list, ref))
	}
	if name, ok := strings.CutSuffix(hostOf(r.Host), ".localhost"); ok {
		if v, err := named(list, name); err == nil {
			return portOf(v, nil)
		}
		if text, handle, ok := strings.Cut(name, "-"); ok {
			if port, err := strconv.ParseUint(text, 10, 16); err == nil {
				v, err := named(list, handle)
				return exposed(v, uint16(port), err)
			}
		}
		return portOf(named(list, name))
	}
	var only []instance.View
	for _, v := range list {
		if v.Enabled && !v.Spec.Ephemeral && len(v.Spec.Expose) > 0 {
			only = append(only, v)
		}
	}
	switch len(only) {
	case 1:
		return portOf(only[0], nil)
	case 0:
		return instance.View{}, 0, fault.New(fault.NotFound, "no instance has a port").
			WithHint("make one: aegis instance start --expose 80 -- COMMAND")
	}
	return instance.View{}, 0, fault.New(fault.NotFound, "the request does not say which of %d instances it is for", len(only)).
		WithHint("ask for HANDLE.localhost, or send the header " + InstanceHeader)
}

// named returns the instance of that id or handle. Host names have no capitals, so a
// handle that differs in nothing else is meant too.
func named(list []instance.View, ref string) (instance.View, error) {
	for _, same := range []func(string) bool{
		func(s string) bool { return s == ref },
		func(s string) bool { return strings.EqualFold(s, ref) },
	} {
		i := slices.IndexFunc(list, func(v instance.View) bool { return same(v.Spec.Handle) || same(string(v.ID)) })
		if i >= 0 {
			return list[i], nil
		}
	}
	return instance.View{}, fault.New(fault.NotFound, "there is no instance %q", ref).WithHint("see: aegis instance list")
}

// portOf returns the port that stands for an instance: the first that speaks HTTP,
// else the first.
func portOf(v instance.View, err error) (instance.View, uint16, error) {
	if err != nil {
		return v, 0, err
	}
	if len(v.Spec.Expose) == 0 {
		return v, 0, fault.New(fault.NotFound, "%s has no port", v.Spec.Handle).
			WithHint("open one: aegis instance expose %s 80", v.Spec.Handle)
	}
	i := slices.IndexFunc(v.Spec.Expose, func(e instance.Expose) bool { return e.Protocol == instance.HTTP })
	return v, v.Spec.Expose[max(i, 0)].Guest, nil
}

func exposed(v instance.View, port uint16, err error) (instance.View, uint16, error) {
	if err != nil {
		return v, 0, err
	}
	if !slices.ContainsFunc(v.Spec.Expose, func(e instance.Expose) bool { return e.Guest == port }) {
		return v, 0, fault.New(fault.NotFound, "port %d of %s is not exposed", port, v.Spec.Handle).
			WithHint("open it: aegis instance expose %s %d", v.Spec.Handle, port)
	}
	return v, port, nil
}
