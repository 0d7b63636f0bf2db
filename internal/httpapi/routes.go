package httpapi

import (
	"net/http"
	"slices"
	"strings"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/logattr"
)

// handle answers one request. An error it returns becomes the answer; so it has
// written nothing before.
type handle func(w http.ResponseWriter, r *http.Request) error

// route is one line of the table of all routes.
type route struct {
	method, path string
	handle       handle
}

func (s *Server) routes() []route {
	return []route{
		{http.MethodGet, "/v1/status", s.status},
		{http.MethodPost, "/v1/run", s.run},
		{http.MethodPost, "/v1/instances", s.createInstance},
		{http.MethodGet, "/v1/instances", s.listInstances},
		{http.MethodPost, "/v1/instances/prune", s.pruneInstances},
		{http.MethodGet, "/v1/instances/{id}", s.instanceInfo},
		{http.MethodDelete, "/v1/instances/{id}", s.change(Instances.Delete, "deleted")},
		{http.MethodPost, "/v1/instances/{id}/start", s.change(Instances.Start, api.StateRunning)},
		{http.MethodPost, "/v1/instances/{id}/stop", s.change(Instances.Stop, api.StateStopped)},
		{http.MethodPost, "/v1/instances/{id}/restart", s.change(Instances.Restart, api.StateRunning)},
		{http.MethodPost, "/v1/instances/{id}/disable", s.change(Instances.Disable, "disabled")},
		{http.MethodPost, "/v1/instances/{id}/pause", s.change(Instances.Pause, api.StatePaused)},
		{http.MethodPost, "/v1/instances/{id}/resume", s.change(Instances.Resume, api.StateRunning)},
		{http.MethodPost, "/v1/instances/{id}/exec", s.exec},
		{http.MethodGet, "/v1/instances/{id}/logs", s.logs},
		{http.MethodGet, "/v1/events", s.events},
	}
}

// handler returns the routes behind the gate.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	byPath := map[string][]route{}
	for _, r := range s.routes() {
		byPath[r.path] = append(byPath[r.path], r)
	}
	for path, routes := range byPath {
		mux.Handle(path, s.guard(byMethod(routes)))
	}
	mux.Handle("/", s.guard(func(_ http.ResponseWriter, r *http.Request) error {
		return fault.New(fault.NotFound, "%s is not part of this API", r.URL.Path).
			WithHint("client and daemon may be of different versions; see: aegis version")
	}))
	return mux
}

// byMethod picks the route of one path. The mux could, but its refusals are not
// JSON.
func byMethod(routes []route) handle {
	return func(w http.ResponseWriter, r *http.Request) error {
		if i := slices.IndexFunc(routes, func(x route) bool { return x.method == r.Method }); i >= 0 {
			return routes[i].handle(w, r)
		}
		var allowed []string
		for _, x := range routes {
			allowed = append(allowed, x.method)
		}
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		return fault.Wrap(fault.Invalid, errMethod, "%s %s", r.Method, r.URL.Path)
	}
}

// guard is the one gate that every request passes: it lets in the daemon's user and
// root, bounds the body, and turns errors and panics into answers.
func (s *Server) guard(h handle) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer s.rescue(w, r)
		r.Body = http.MaxBytesReader(w, r.Body, s.conf.Limits.Body)
		err := s.admit(r)
		if err == nil {
			err = h(w, r)
		}
		if err != nil {
			s.answerError(w, r, err)
		}
	})
}

// admit checks who is at the other end of the connection. The socket's mode keeps
// others out too; this holds also where somebody has opened the folder.
func (s *Server) admit(r *http.Request) error {
	uid, err := peerOf(r.Context())
	if err != nil {
		return fault.Wrap(fault.Denied, err, "cannot tell who is calling")
	}
	if uid != s.uid && uid != 0 {
		return fault.New(fault.Denied, "this daemon belongs to another user").
			WithHint("start your own: unset AEGIS_HOME, then aegis up")
	}
	return nil
}

// rescue answers for a handler that panicked. The daemon goes on: it has other
// users' VMs to care for.
func (s *Server) rescue(w http.ResponseWriter, r *http.Request) {
	p := recover()
	if p == nil {
		return
	}
	if p == http.ErrAbortHandler { //nolint:errorlint // compared as net/http does
		panic(p)
	}
	err := fault.New(fault.Internal, "a defect in aegisd stopped this request").
		WithHint("the log has the details; please report them")
	s.conf.Log.ErrorContext(r.Context(), "panic", logattr.Request(r.Method, r.URL.Path), logattr.Panic(p))
	s.answerError(w, r, err)
}
