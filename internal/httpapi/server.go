package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/instance"
)

// Runner makes ephemeral instances.
type Runner interface {
	// Run returns when the program runs. When ctx ends before that, or anything
	// fails, nothing of the instance is left.
	Run(ctx context.Context, spec instance.Spec) (Running, error)
}

// Running is an ephemeral instance and the connection to its program, as
// instance.Attachment describes it. Close ends and deletes the instance, unblocks
// Recv and Send, and waits until nothing is left.
type Running interface {
	ID() instance.ID
	Recv() (frame.Frame, error)
	Send(f frame.Frame) error
	Close() error
}

// Config is what a Server is made of.
type Config struct {
	Runner    Runner
	Instances Instances
	Secrets   Secrets
	Images    Images
	Kits      Kits // nil knows none
	Tether    Tether
	Schedules Schedules
	Status    func() api.Status
	// Shutdown begins to end the daemon, with all instances: they are put to sleep, or
	// stopped if stop is set. It returns at once.
	Shutdown func(stop bool)
	Metrics  http.Handler // serves GET /v1/metrics
	Log      *slog.Logger
	Limits   Limits
}

// Limits protects the daemon from its clients. The zero value of a field is its
// default.
type Limits struct {
	// Body bounds what a request makes the daemon keep in memory.
	Body int64
	// Header bounds how long a client may take for a request's head: one that
	// connects and says nothing is let go.
	Header time.Duration
	// Farewell bounds how long a client that does not read can keep the daemon from
	// ending.
	Farewell time.Duration
}

func (l *Limits) complete() {
	if l.Body == 0 {
		l.Body = 1 << 20
	}
	if l.Header == 0 {
		l.Header = 10 * time.Second
	}
	if l.Farewell == 0 {
		l.Farewell = 3 * time.Second
	}
}

// Server serves the API on one listener.
type Server struct {
	conf    Config
	http    *http.Server
	uid     int            // of the one user who may call, next to root
	streams sync.WaitGroup // attach streams: http.Server does not wait for them

	mu      sync.Mutex                            // protects what follows
	clients map[*http.ResponseController]struct{} // of the requests that are being served
}

// New returns a Server that serves the user uid.
func New(conf Config, uid int) *Server {
	conf.Limits.complete()
	s := &Server{conf: conf, uid: uid, clients: map[*http.ResponseController]struct{}{}}
	s.http = &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: conf.Limits.Header,
		ConnContext:       withPeer,
		ErrorLog:          slog.NewLogLogger(conf.Log.Handler(), slog.LevelWarn),
	}
	return s
}

// Serve answers on ln until Close. The listener is the server's from here on.
func (s *Server) Serve(ln net.Listener) error {
	if err := s.http.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the API: %w", err)
	}
	return nil
}

// Close stops accepting, and returns when every request and stream has ended. It
// does not end the runs behind the streams: the core does, at the same time. When
// ctx ends they are cut off.
func (s *Server) Close(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.setDeadlines(time.Unix(1, 0)) })
	defer stop()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = fmt.Errorf("end the API: %w", errors.Join(err, s.http.Close()))
	}
	s.streams.Wait()
	return err
}

// Hurry lets go of clients that do not read, or do not end what they send, after a
// while. It is called when no instance is left, so that only such a client can keep a
// request open.
func (s *Server) Hurry() { s.setDeadlines(time.Now().Add(s.conf.Limits.Farewell)) }

func (s *Server) setDeadlines(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.clients {
		// They fail on a connection that has ended, which is the aim.
		_, _ = c.SetReadDeadline(t), c.SetWriteDeadline(t)
	}
}

// track notes whom a request comes from, until done is called.
func (s *Server) track(w http.ResponseWriter) (done func()) {
	c := http.NewResponseController(w)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients[c] = struct{}{}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.clients, c)
	}
}
