package guestapi

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/instance"
)

// Instances is what the Guest API needs of the core. *instance.Set is one.
type Instances interface {
	Get(ref string) (instance.View, error)
	Create(ctx context.Context, spec instance.Spec) (instance.View, error)
	Launch(ctx context.Context, spec instance.Spec) (instance.View, error)
	Children(parent instance.ID) []instance.View
	Child(parent instance.ID, ref string) (instance.View, error)
	Start(ctx context.Context, ref string) error
	Stop(ctx context.Context, ref string) error
	Restart(ctx context.Context, ref string) error
	Delete(ctx context.Context, ref string) error
	Exec(ctx context.Context, ref string, spec instance.ExecSpec) (*instance.Exec, error)
	Lines(ctx context.Context, ref string, q instance.LogQuery) (iter.Seq2[instance.LogLine, error], error)
	Fork(ctx context.Context, ref string, f instance.ForkSpec) (forks []instance.View, cold bool, err error)
	Snapshot(ctx context.Context, ref, name string) (instance.Snapshot, error)
	Snapshots(ctx context.Context) ([]instance.Snapshot, error)
	ExposeByGuest(ctx context.Context, ref string, e instance.Expose, most int) (instance.Expose, error)
	UnexposeByGuest(ctx context.Context, ref string, guest uint16) error
	Lease(ctx context.Context, ref string, ttl time.Duration, reason string) (instance.Lease, error)
	EndLease(ctx context.Context, ref string) error
	Retain(ctx context.Context, ref, owner string) (release func(), err error)
}

// Tether takes what agents say.
type Tether interface {
	// Emit takes a frame of the agent in an instance. It returns when the frame is
	// stored, or, if it is a delta, passed on; one that is stored already under its MsgID
	// is answered as it was.
	Emit(ctx context.Context, id instance.ID, f api.Frame) (api.Emitted, error)
}

// Config is what a Server is made of.
type Config struct {
	Instances Instances // may be set until the first Serve: the core has the Server itself
	Tether    Tether    // nil takes no frames
	// Models is where on the host model servers listen, by provider: "ollama" is
	// "http://127.0.0.1:11434". Guests reach those that their capabilities name.
	Models map[string]string
	// Reserved are ports of the host that no guest may open.
	Reserved []uint16
	Log      *slog.Logger
}

// The limits of one connection.
const (
	maxHead = 16 << 10
	// headTime protects a slot from a program that connects and says nothing.
	headTime = 10 * time.Second
	// bodyTime protects it from one that does not end its request.
	bodyTime = time.Minute
	// idleTime gives slots back that are kept for later requests.
	idleTime = 10 * time.Second
)

// Server answers all guests of a daemon.
type Server struct {
	conf   Config
	http   *http.Server
	models *http.Client
	ln     *handover
	ctx    context.Context //nolint:containedctx // of what goes on behind an answer; Close ends it
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex // protects what follows
	peers map[instance.ID]*peer
}

var _ instance.GuestAPI = (*Server)(nil)

// New returns a Server that serves. Close ends it.
func New(conf Config) *Server {
	s := &Server{conf: conf, ln: newHandover(), peers: map[instance.ID]*peer{}, models: modelClient()}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.http = &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: headTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    maxHead,
		ConnContext:       withPeer,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, 0), // of what a guest breaks, as often as it likes
	}
	s.wg.Go(func() { _ = s.http.Serve(s.ln) }) // ends with Close
	return s
}

// SetInstances says whom the guests are of, before the first Serve.
func (s *Server) SetInstances(i Instances) { s.conf.Instances = i }

// SetTether says who takes what agents say, before the first Serve.
func (s *Server) SetTether(t Tether) { s.conf.Tether = t }

// Serve implements instance.GuestAPI.
func (s *Server) Serve(ctx context.Context, id instance.ID, conn net.Conn) {
	p := s.peer(id)
	defer s.release(p)
	c := &peerConn{Conn: conn, peer: p, done: make(chan struct{})}
	select {
	case s.ln.conns <- c:
	case <-s.ln.closed:
		_ = c.Close()
	case <-ctx.Done():
		_ = c.Close()
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		_ = c.Close() // whoever uses it notices
	}
}

// Close ends all connections, and returns when nothing that requests began goes on.
func (s *Server) Close(ctx context.Context) error {
	s.cancel()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	s.wg.Wait()
	s.models.CloseIdleConnections()
	return err
}

// handover is the listener of connections that Serve is given.
type handover struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newHandover() *handover {
	return &handover{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// Accept implements net.Listener.
func (h *handover) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (h *handover) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

// Addr implements net.Listener.
func (h *handover) Addr() net.Addr { return &net.UnixAddr{Name: "guests", Net: "unix"} }

// peerConn is a connection of a guest.
type peerConn struct {
	net.Conn

	peer *peer
	once sync.Once
	done chan struct{}
}

// Close implements net.Conn.
func (c *peerConn) Close() error {
	err := net.ErrClosed
	c.once.Do(func() {
		err = c.Conn.Close()
		close(c.done)
	})
	return err
}

type peerKey struct{}

func withPeer(ctx context.Context, c net.Conn) context.Context {
	pc, _ := c.(*peerConn)
	return context.WithValue(ctx, peerKey{}, pc.peer)
}

func peerOf(r *http.Request) *peer {
	p, _ := r.Context().Value(peerKey{}).(*peer)
	return p
}
