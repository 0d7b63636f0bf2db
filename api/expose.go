package api

import (
	"net"
	"strconv"
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
