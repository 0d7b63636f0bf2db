package daemon

import (
	"context"
	"net/netip"
	"net/url"
	"strconv"

	"github.com/xfeldman/aegisvm/internal/config"
	"github.com/xfeldman/aegisvm/internal/guestapi"
)

// openGuestAPI makes what answers the guests. The core hands connections to it, and is what
// it asks: see build.
func (d *daemon) openGuestAPI() {
	models := d.Config.Models()
	d.guests = guestapi.New(guestapi.Config{Models: models, Reserved: reservedPorts(d.Config.Router, models), Log: d.Log})
	d.parts.push("guest API", func(ctx context.Context) error { return d.guests.Close(ctx) })
}

// reservedPorts are those on which guests could pass for something of the host's.
func reservedPorts(router string, models map[string]string) []uint16 {
	var ports []uint16
	if a, err := netip.ParseAddrPort(router); err == nil && router != config.RouterOff {
		ports = append(ports, a.Port())
	}
	for _, m := range models {
		u, err := url.Parse(m)
		if err != nil {
			continue
		}
		if p, err := strconv.ParseUint(u.Port(), 10, 16); err == nil {
			ports = append(ports, uint16(p))
		}
	}
	return ports
}
