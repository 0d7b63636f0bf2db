package api

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// ExposeRequest is the body of POST /v1/instances/{id}/expose: a port of the guest
// that is to be open on the host. The answer is an Exposed. A port that is open
// already as it is wanted stays as it is.
type ExposeRequest struct {
	Port       int    `json:"port"`                  // of the guest
	PublicPort int    `json:"public_port,omitempty"` // of the host; 0 is any, and is kept
	Protocol   string `json:"protocol,omitempty"`    // "http" (the default) or "tcp"
	Bind       string `json:"bind,omitempty"`        // address of the host; "" is 127.0.0.1
}

// Endpoint is a port of an instance that is open on the host.
type Endpoint struct {
	GuestPort  int    `json:"guest_port"`
	PublicPort int    `json:"public_port"`
	Protocol   string `json:"protocol"`
	Bind       string `json:"bind,omitempty"` // address of the host; "" is 127.0.0.1
}

// Exposed answers an ExposeRequest.
type Exposed struct {
	Endpoint
	URL string `json:"url"`
}

// Loopback is where ports are open unless they are bound elsewhere.
const Loopback = "127.0.0.1"

// URL returns where clients on this host find the port: http://127.0.0.1:8080.
func (e Endpoint) URL() string {
	host := e.Bind
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = Loopback
	}
	return e.Protocol + "://" + net.JoinHostPort(host, strconv.Itoa(e.PublicPort))
}

// ParseExpose reads a port as people write it: [PUBLIC:]GUEST[/PROTOCOL].
func ParseExpose(s string) (ExposeRequest, error) {
	var req ExposeRequest
	ports, protocol, ok := strings.Cut(s, "/")
	if ok && protocol != "tcp" && protocol != "http" {
		return req, fmt.Errorf("%q is not a protocol: http or tcp", protocol)
	}
	req.Protocol = protocol
	public, guest, ok := strings.Cut(ports, ":")
	if !ok {
		guest = public
	}
	var err error
	if req.Port, err = ParsePort(guest); err != nil {
		return req, err
	}
	if ok {
		req.PublicPort, err = ParsePort(public)
	}
	return req, err
}

// ParsePort reads the number of a port.
func ParsePort(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is not a port: 1 to 65535", s)
	}
	return int(n), nil
}
