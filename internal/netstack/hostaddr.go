package netstack

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// hostAddrsAge is for how long the host's addresses are taken to be the same.
const hostAddrsAge = time.Second

// hostAddrs knows the host's own addresses.
type hostAddrs struct {
	list func() ([]netip.Addr, error)
	nets func() ([]netip.Prefix, error)

	// mu is held while the addresses are asked for, too: who decides in the meantime
	// needs the same answer.
	mu    sync.Mutex
	asked time.Time
	addrs map[netip.Addr]struct{}
	links []netip.Prefix // of IPv6
	err   error
}

// has reports whether a is an address of the host. An error means that nobody knows.
func (h *hostAddrs) has(a netip.Addr) (bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refresh()
	if h.err != nil {
		return false, h.err
	}
	_, own := h.addrs[a.Unmap().WithZone("")]
	if inner, ok := embedded(a); ok && !own {
		_, own = h.addrs[inner]
	}
	return own, nil
}

// near returns the prefix of a link of the host that an address of IPv6 is on.
func (h *hostAddrs) near(a netip.Addr) (netip.Prefix, bool) {
	if a.Unmap().Is4() {
		return netip.Prefix{}, false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refresh()
	for _, p := range h.links {
		if p.Contains(a.WithZone("")) {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// refresh asks the host if it is time to. The caller holds mu.
func (h *hostAddrs) refresh() {
	if h.asked.IsZero() || time.Since(h.asked) > hostAddrsAge {
		h.asked = time.Now()
		addrs, err := h.list()
		if h.err = err; err == nil {
			h.addrs = make(map[netip.Addr]struct{}, len(addrs))
			for _, a := range addrs {
				h.addrs[a.Unmap().WithZone("")] = struct{}{}
			}
			if h.nets != nil {
				h.links, h.err = h.nets()
			}
		}
	}
}

// interfaceAddrs asks the kernel.
func interfaceAddrs() ([]netip.Addr, error) {
	nets, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var addrs []netip.Addr
	for _, n := range nets {
		if p, ok := n.(*net.IPNet); ok {
			if a, ok := netip.AddrFromSlice(p.IP); ok {
				addrs = append(addrs, a.Unmap())
			}
		}
	}
	return addrs, nil
}

// interfaceNets asks the kernel for the prefixes of IPv6 that are wider than one address.
func interfaceNets() ([]netip.Prefix, error) {
	nets, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var out []netip.Prefix
	for _, n := range nets {
		p, ok := n.(*net.IPNet)
		if !ok || p.IP.To4() != nil {
			continue
		}
		if a, ok := netip.AddrFromSlice(p.IP); ok {
			if bits, _ := p.Mask.Size(); bits < a.BitLen() {
				out = append(out, netip.PrefixFrom(a, bits).Masked())
			}
		}
	}
	return out, nil
}

// hasRoute asks the kernel whether there is a way to an address: to connect a socket of UDP
// looks for one, and sends nothing.
func hasRoute(a netip.Addr) bool {
	c, err := net.DialUDP("udp6", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 9)))
	if err != nil {
		return false
	}
	_ = c.Close() // nothing was sent
	return true
}
