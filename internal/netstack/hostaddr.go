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

	// mu is held while the addresses are asked for, too: who decides in the meantime
	// needs the same answer.
	mu    sync.Mutex
	asked time.Time
	addrs map[netip.Addr]struct{}
	err   error
}

// has reports whether a is an address of the host. An error means that nobody knows.
func (h *hostAddrs) has(a netip.Addr) (bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.asked.IsZero() || time.Since(h.asked) > hostAddrsAge {
		h.asked = time.Now()
		addrs, err := h.list()
		if h.err = err; err == nil {
			h.addrs = make(map[netip.Addr]struct{}, len(addrs))
			for _, a := range addrs {
				h.addrs[a.Unmap().WithZone("")] = struct{}{}
			}
		}
	}
	if h.err != nil {
		return false, h.err
	}
	_, own := h.addrs[a.Unmap().WithZone("")]
	if inner, ok := embedded(a); ok && !own {
		_, own = h.addrs[inner]
	}
	return own, nil
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
