package router

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"
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
	// Dial connects to a port of the guest. The connection may outlive the Awake; the
	// Dial does not.
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
	shut      context.CancelCauseFunc // ends all requests
	serving   sync.WaitGroup          // requests

	mu     sync.Mutex
	closed bool
	guests map[instance.ID]*guest
}

// Limits of the front's own server: they protect it from clients that say nothing.
// There is none on answers and bodies, which may take as long as they like.
const (
	headTimeout = 30 * time.Second
	idleTimeout = 2 * time.Minute
	maxHead     = 1 << 20
)

var errFrontShut = errors.New("the router was closed")

// NewFront returns the HTTP router for those instances. It does no I/O.
func NewFront(instances Instances, logger *slog.Logger) *Front {
	f := &Front{instances: instances, log: logger, wake: DefaultWake, guests: map[instance.ID]*guest{}}
	quiet := slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug) // clients that break off are not the daemon's matter
	f.proxy = &httputil.ReverseProxy{
		Rewrite:       rewrite,
		Transport:     transport{},
		FlushInterval: -1, // at once: events and progress are watched
		BufferPool:    &buffers,
		ErrorHandler:  func(w http.ResponseWriter, r *http.Request, err error) { f.failed(w, r, ofGuest(err)) },
		ErrorLog:      quiet,
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	f.shut = cancel
	f.server = &http.Server{
		Handler: f, Protocols: new(http.Protocols), ErrorLog: quiet,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: headTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHead,
		DisableGeneralOptionsHandler: true, // OPTIONS * is for the guest
	}
	f.server.Protocols.SetHTTP1(true)
	f.server.Protocols.SetUnencryptedHTTP2(true) // gRPC without TLS
	return f
}

// Serve answers on ln until Close.
func (f *Front) Serve(ln net.Listener) error {
	if err := f.server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Close ends the router and breaks off its requests; it returns when they have ended.
func (f *Front) Close() error {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	err := f.server.Close()
	f.shut(errFrontShut) // after the server: a request that ends has nobody to tell any more
	f.serving.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, g := range f.guests {
		g.close()
		delete(f.guests, id)
	}
	return err
}

// enter counts a request in, unless the router is being closed.
func (f *Front) enter() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.serving.Add(1)
	}
	return !f.closed
}

// passage is what a request needs on its way to the guest; it is found in the
// request's context.
type passage struct {
	awake Awake
	guest *guest
	port  uint16
}

type passageKey struct{}

func passageOf(ctx context.Context) *passage {
	return ctx.Value(passageKey{}).(*passage) //nolint:forcetypeassert // every request that is passed on has one
}

// ServeHTTP implements http.Handler.
func (f *Front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !f.enter() {
		panic(http.ErrAbortHandler)
	}
	defer f.serving.Done()
	if err := local(r); err != nil {
		answerError(w, r, http.StatusForbidden, err)
		return
	}
	v, port, err := f.find(r)
	if err != nil {
		answerError(w, r, http.StatusNotFound, err)
		return
	}
	awake, err := f.awake(r.Context(), v)
	if err != nil {
		f.failed(w, r, err)
		return
	}
	defer awake.Release()
	_ = http.NewResponseController(w).EnableFullDuplex() // HTTP/2 has it, and says that it cannot
	w.Header()["Content-Type"] = nil                     // not guessed, should the guest not say
	p := &passage{awake: awake, guest: f.guest(v.ID), port: port}
	f.proxy.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), passageKey{}, p)))
}

func (f *Front) awake(ctx context.Context, v instance.View) (Awake, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, f.wake,
		fault.New(fault.Timeout, "%s did not wake within %v", v.Spec.Handle, f.wake).WithHint("see: aegis instance info %s", v.Spec.Handle))
	defer cancel()
	return f.instances.Awake(ctx, string(v.ID), "HTTP request")
}

// rewrite tells the guest who asked, and leaves the rest as it was: programs see the
// host name that the client used.
func rewrite(r *httputil.ProxyRequest) {
	// Idle connections are kept by this name: one port, one pool.
	r.Out.URL.Scheme, r.Out.URL.Host = "http", "guest:"+strconv.Itoa(int(passageOf(r.In.Context()).port))
	r.Out.URL.RawQuery = r.In.URL.RawQuery // it is the guest's to judge
	r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"]
	r.SetXForwarded()
	for name, values := range r.Out.Header {
		// Small servers look for it as RFC 6455 writes it.
		if rest, ok := strings.CutPrefix(name, "Sec-Websocket-"); ok {
			delete(r.Out.Header, name)
			r.Out.Header["Sec-WebSocket-"+rest] = values
		}
	}
}

// failed answers a request that did not reach the guest, or that it did not answer.
func (f *Front) failed(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		return // the client has gone, or was sent away
	}
	f.log.DebugContext(r.Context(), "request", logattr.Err(err))
	answerError(w, r, statusOf(err), err)
}
