package netstack

import (
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
)

// conf is what resolv.conf(5) says that matters here: the guest searches for itself.
type conf struct {
	servers  []netip.AddrPort
	timeout  time.Duration // of one question to one server
	attempts int
}

// readConf reads path. A file that cannot be read names no servers.
func readConf(path string) conf {
	b, err := os.ReadFile(path)
	if err != nil {
		return conf{}
	}
	return parseConf(string(b))
}

func parseConf(text string) conf {
	c := conf{timeout: 3 * time.Second, attempts: 2}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(fields[1]); err == nil && len(c.servers) < 3 {
				c.servers = append(c.servers, netip.AddrPortFrom(a, 53))
			}
		case "options":
			for _, o := range fields[1:] {
				key, value, _ := strings.Cut(o, ":")
				n, err := strconv.Atoi(value)
				if err != nil {
					continue
				}
				switch key {
				case "timeout":
					c.timeout = time.Duration(min(max(n, 1), 5)) * time.Second
				case "attempts":
					c.attempts = min(max(n, 1), 3)
				}
			}
		}
	}
	return c
}
