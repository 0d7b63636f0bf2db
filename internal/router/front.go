package router

import (
	"context"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"strconv"
	"sync"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/logattr"
)

// Instances is what Front needs of the core.
type Instances interface {
	List() []instance.View

	// Awake wakes an instance and holds it awake until Release. owner says for what.
	Awake(ctx context.Context, ref, owner string) (Awake, error)
}

// Awake is an instance that is held awake. *instance.Awake is one.
type Awake interface {
	// Dial connects to a port of the guest. The connection may outlive the Awake.
	Dial(ctx context.Context, port uint16) (instance.GuestConn, error)
	Release()
}

// Front is the HTTP router: one address for the HTTP ports of all instances.
type Front struct {
	instances Instances
	log       *slog.Logger
	wake      time.Duration
	server    *http.Server
	proxy     *httputil.ReverseProxy

	mu     sync.Mutex
	guests map[instance.ID]*guest
}

// Limits of the front's own server: they protect it from clients that say nothing.
// There is none on answers and bodies, which may take as long as they like.
const (
	headTimeout = 30 * time.Second
	idleTimeout = 2 * time.Minute
	maxHead     = 1 << 20
)

// NewFront returns the HTTP router for those instances. It does no I/O.
func NewFront(instances Instances, logger *slog.Logger) *Front {
	f := &Front{instances: instances, log: logger, wake: DefaultWake, guests: map[instance.ID]*guest{}}
	quiet := log.New(io.Discard, "", 0) // clients that break off are not the daemon's matter
	f.proxy = &httputil.ReverseProxy{
		Rewrite:       rewrite,
		Transport:     transport{},
		FlushInterval: -1, // at once: events and progress are watched
		ErrorHandler:  func(w http.ResponseWriter, r *http.Request, err error) { f.failed(w, r, err) },
		ErrorLog:      quiet,
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true) // gRPC without TLS
	f.server = &http.Server{
		Handler: f, Protocols: protocols, ErrorLog: quiet,
		ReadHeaderTimeout: headTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHead,
	}
	return f
}

// Serve answers on ln until Close.
func (f *Front) Serve(ln net.Listener) error {
	if err := f.server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Close ends the router with all its requests.
func (f *Front) Close() error {
	err := f.server.Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, g := range f.guests {
		g.close()
		delete(f.guests, id)
	}
	return err
}

// passage is what a request needs on its way to the guest; it is found in the
// request's context.
type passage struct {
	awake Awake
	guest *guest
	port  uint16
}

type passageKey struct{}

// ServeHTTP implements http.Handler.
func (f *Front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := local(r); err != nil {
		answerError(w, r, err)
		return
	}
	v, port, err := f.find(r)
	if err != nil {
		answerError(w, r, err)
		return
	}
	ctx, cancel := context.WithTimeoutCause(r.Context(), f.wake,
		fault.New(fault.Timeout, "%s did not wake within %v", v.Spec.Handle, f.wake).WithHint("see: aegis instance info %s", v.Spec.Handle))
	awake, err := f.instances.Awake(ctx, string(v.ID), "HTTP request")
	cancel()
	if err != nil {
		answerError(w, r, err)
		return
	}
	defer awake.Release()
	p := &passage{awake: awake, guest: f.guest(v.ID), port: port}
	f.proxy.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), passageKey{}, p)))
}

// rewrite tells the guest who asked, and leaves the rest as it was: programs see the
// host name that the client used.
func rewrite(r *httputil.ProxyRequest) {
	p := r.In.Context().Value(passageKey{}).(*passage) //nolint:forcetypeassert // every request has one
	// Idle connections are kept by this name: one port, one pool.
	r.Out.URL.Scheme, r.Out.URL.Host = "http", "guest:"+strconv.Itoa(int(p.port))
	r.Out.Host = r.In.Host
	r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"]
	r.SetXForwarded()
}

// failed answers a request that did not reach the guest, or whose answer broke off.
func (f *Front) failed(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		return // the client has gone
	}
	f.log.DebugContext(r.Context(), "request", logattr.Err(err))
	if _, ok := errors.AsType[*fault.Error](err); !ok {
		err = fault.Wrap(fault.Unavailable, err, "the program broke off").By(fault.Program)
	}
	answerError(w, r, err)
}
