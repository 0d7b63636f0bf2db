package router

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
)

// guest is what Front keeps of one instance between requests: connections that are
// idle. They hold nothing awake and end with the machine.
type guest struct {
	http1, http2 *http.Transport
}

// Connections kept for later requests.
const (
	maxIdle     = 32
	idleConnFor = 90 * time.Second
)

func newGuest() *guest {
	g := &guest{}
	for _, t := range []struct {
		to    **http.Transport
		http2 bool
	}{{&g.http1, false}, {&g.http2, true}} {
		p := new(http.Protocols)
		p.SetHTTP1(!t.http2)
		p.SetUnencryptedHTTP2(t.http2)
		*t.to = &http.Transport{
			DialContext:         dial,
			Protocols:           p,
			DisableCompression:  true, // what the client asks for is what the guest is asked for
			MaxIdleConnsPerHost: maxIdle,
			IdleConnTimeout:     idleConnFor,
			// A guest may refuse a body before it is sent; one that does not know how is
			// sent it after this.
			ExpectContinueTimeout: time.Second,

			MaxResponseHeaderBytes: maxHead,
		}
	}
	return g
}

func (g *guest) close() {
	g.http1.CloseIdleConnections()
	g.http2.CloseIdleConnections()
}

// dial connects to the guest that the request in ctx is for. What it makes belongs to
// the transport of that guest alone.
func dial(ctx context.Context, _, _ string) (net.Conn, error) {
	p := passageOf(ctx)
	ctx, cancel := context.WithTimeoutCause(ctx, DefaultWake, fault.New(fault.Timeout, "port %d did not answer within %v", p.port, DefaultWake))
	defer cancel()
	c, err := p.awake.Dial(ctx, p.port)
	if err != nil {
		return nil, unreachable{err}
	}
	return c, nil
}

// unreachable says that there was no connection to a guest.
type unreachable struct{ error }

// Unwrap lets the reason be found.
func (u unreachable) Unwrap() error { return u.error }

// errBrokeOff says that a program hung up, or did not speak HTTP.
var errBrokeOff = errors.New("the program broke off")

// ofGuest explains an error between the router and a guest.
func ofGuest(err error) error {
	if _, ok := errors.AsType[unreachable](err); ok {
		return err // it says why
	}
	return fault.Wrap(fault.Unavailable, fmt.Errorf("%w: %w", errBrokeOff, err), "").By(fault.Program)
}

// transport sends a request to its guest, in the version of HTTP in which it came.
type transport struct{}

// RoundTrip implements http.RoundTripper.
func (transport) RoundTrip(r *http.Request) (*http.Response, error) {
	p := passageOf(r.Context())
	if r.ProtoMajor == 2 {
		return p.guest.http2.RoundTrip(r)
	}
	return p.guest.http1.RoundTrip(r)
}

// guest returns what is kept of an instance, and lets go of what is kept of others
// that are no more.
func (f *Front) guest(id instance.ID) *guest {
	f.mu.Lock()
	g, ok := f.guests[id]
	if !ok {
		g = newGuest()
		f.guests[id] = g
	}
	f.mu.Unlock()
	if !ok {
		f.sweep()
	}
	return g
}

func (f *Front) sweep() {
	alive := map[instance.ID]bool{}
	for _, v := range f.instances.List() {
		alive[v.ID] = true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, g := range f.guests {
		if !alive[id] {
			g.close()
			delete(f.guests, id)
		}
	}
}
