package guestapi

import (
	"context"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/logattr"
)

// call is one request, and who makes it.
type call struct {
	w http.ResponseWriter
	r *http.Request

	peer *peer
	self instance.View
}

// ctx is the request's: it ends when the client goes, or its machine.
func (c *call) ctx() context.Context { return c.r.Context() }

// id is the caller's.
func (c *call) id() string { return string(c.self.ID) }

// handle answers one request. An error it returns becomes the answer; so it has written
// nothing before.
type handle func(c *call) error

// route is one line of the table of all routes.
type route struct {
	method, path string
	handle       handle
	heavy        bool  // few at a time
	body         int64 // limit of the body, where maxBody is too small
}

// maxBody bounds what a request makes the host keep in memory.
const maxBody = 1 << 20

func (s *Server) routes() []route {
	const one = "/v1/instances/{id}"
	return []route{
		{method: http.MethodGet, path: "/v1/self", handle: s.getSelf},
		{method: http.MethodPost, path: "/v1/self/keepalive", handle: s.keepalive},
		{method: http.MethodDelete, path: "/v1/self/keepalive", handle: s.endKeepalive},
		{method: http.MethodPost, path: "/v1/self/expose", handle: s.expose},
		{method: http.MethodDelete, path: "/v1/self/expose/{port}", handle: s.unexpose},
		{method: http.MethodPost, path: "/v1/self/restart", handle: s.restart},
		{method: http.MethodPost, path: "/v1/self/snapshot", handle: s.snapshot, heavy: true},
		{method: http.MethodPost, path: "/v1/self/fork", handle: s.forkSelf, heavy: true},
		{method: http.MethodPost, path: "/v1/instances", handle: s.spawn, heavy: true},
		{method: http.MethodGet, path: "/v1/instances", handle: s.children},
		{method: http.MethodGet, path: one, handle: s.ofChild(s.getChild)},
		{method: http.MethodDelete, path: one, handle: s.ofChild(s.deleteChild)},
		{method: http.MethodPost, path: one + "/start", handle: s.ofChild(s.startChild), heavy: true},
		{method: http.MethodPost, path: one + "/stop", handle: s.ofChild(s.stopChild)},
		{method: http.MethodPost, path: one + "/exec", handle: s.ofChild(s.execChild), heavy: true},
		{method: http.MethodGet, path: one + "/logs", handle: s.ofChild(s.logsOfChild), heavy: true},
		{method: http.MethodPost, path: one + "/fork", handle: s.ofChild(s.forkChild), heavy: true},
		{method: http.MethodPost, path: one + "/expose", handle: s.ofChild(s.exposeChild)},
		{method: http.MethodDelete, path: one + "/expose/{port}", handle: s.ofChild(s.unexposeChild)},
		{method: http.MethodPost, path: "/v1/tether/send", handle: s.tetherSend},
		{method: http.MethodPost, path: "/v1/llm/chat", handle: s.chat, body: maxChat},
	}
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	byPath := map[string][]route{}
	for _, r := range s.routes() {
		byPath[r.path] = append(byPath[r.path], r)
	}
	for path, routes := range byPath {
		mux.Handle(path, s.guard(byMethod(routes)))
	}
	mux.Handle("/", s.guard(func(c *call) error {
		return fault.New(fault.NotFound, "%q is not part of the Guest API", c.r.URL.Path)
	}))
	return mux
}

// byMethod picks the route of one path.
func byMethod(routes []route) handle {
	return func(c *call) error {
		i := slices.IndexFunc(routes, func(r route) bool { return r.method == c.r.Method })
		if i < 0 {
			var allowed []string
			for _, r := range routes {
				allowed = append(allowed, r.method)
			}
			c.w.Header().Set("Allow", strings.Join(allowed, ", "))
			return fault.Wrap(fault.Invalid, errMethod, "%s %s", c.r.Method, c.r.URL.Path)
		}
		r := routes[i]
		c.r.Body = http.MaxBytesReader(c.w, c.r.Body, max(maxBody, r.body))
		if r.heavy {
			done, err := take(c.peer.heavy, "such requests")
			if err != nil {
				return err
			}
			defer done()
		}
		return r.handle(c)
	}
}

// guard is the one gate that every request passes: it bounds their rate, finds out who
// asks, and turns errors and panics into answers.
func (s *Server) guard(h handle) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := peerOf(r)
		defer s.rescue(w, r, p)
		if r.ContentLength != 0 { // whoever answers without reading it has the rest read too
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTime))
		}
		err := p.admit(r.Context())
		if err == nil {
			err = ofProgram(r)
		}
		if err == nil {
			c := &call{w: w, r: r, peer: p}
			if c.self, err = s.conf.Instances.Get(string(p.id)); err == nil {
				err = h(c)
			}
		}
		if err != nil {
			s.refuse(w, r, p, err)
		}
	})
}

// ofProgram refuses requests that a web page makes in a browser in the guest: of another
// origin, or by a name that was made to mean this address.
func ofProgram(r *http.Request) error {
	name := r.Host
	if h, _, err := net.SplitHostPort(name); err == nil {
		name = h
	}
	switch {
	case r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != "":
		return fault.New(fault.Denied, "the Guest API is not for web pages")
	case name != "" && name != "127.0.0.1" && name != "localhost":
		return fault.New(fault.Denied, "the Guest API is not called %q", name).WithHint("it is http://%s", guestproto.APIAddress)
	}
	return nil
}

// refuse is where errors of requests end: the guest gets what concerns it, the log all.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, p *peer, err error) {
	path := r.URL.Path
	p.refused(s.conf.Log, r.Method[:min(len(r.Method), 16)], path[:min(len(path), 128)], err)
	if statusOf(err) == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	_ = answer(w, statusOf(err), errorOf(err)) // it always encodes
}

// rescue answers for a handler that panicked.
func (s *Server) rescue(w http.ResponseWriter, r *http.Request, p *peer) {
	v := recover()
	if v == nil {
		return
	}
	if v == http.ErrAbortHandler { //nolint:errorlint // compared as net/http does
		panic(v)
	}
	s.conf.Log.ErrorContext(r.Context(), "panic", logattr.Request(r.Method, r.URL.Path), logattr.Panic(v))
	s.refuse(w, r, p, fault.New(fault.Internal, "a defect in aegisd stopped this request"))
}
