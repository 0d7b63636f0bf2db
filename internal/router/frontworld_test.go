package router

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
)

// stubInstances are instances whose programs run on the host. It counts who holds
// them.
type stubInstances struct {
	mu       sync.Mutex
	views    []instance.View
	programs map[uint16]string // addresses, by guest port
	wakeErr  error
	hang     bool // nobody wakes
	quick    bool // to let go
	woken    []string
	held     atomic.Int32
	released atomic.Int32
	dials    atomic.Int32
}

// add makes an instance that is known under a handle.
func (s *stubInstances) add(handle string, expose ...instance.Expose) *instance.View {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := instance.View{Record: instance.Record{ID: instance.ID("inst-" + handle), Enabled: true}}
	v.Spec.Handle, v.Spec.Expose = handle, expose
	s.views = append(s.views, v)
	return &s.views[len(s.views)-1]
}

func (s *stubInstances) List() []instance.View {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.views
}

func (s *stubInstances) Awake(ctx context.Context, ref, owner string) (Awake, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.woken = append(s.woken, ref)
	if s.hang {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	if s.wakeErr != nil {
		return nil, s.wakeErr
	}
	if owner == "" {
		return nil, errors.New("no owner")
	}
	s.held.Add(1)
	return &stubAwake{of: s}, nil
}

type stubAwake struct {
	of    *stubInstances
	freed atomic.Bool
}

func (a *stubAwake) Dial(ctx context.Context, port uint16) (instance.GuestConn, error) {
	a.of.dials.Add(1)
	a.of.mu.Lock()
	addr, ok := a.of.programs[port]
	a.of.mu.Unlock()
	if !ok || a.freed.Load() {
		return nil, fault.Wrap(fault.Unavailable, syscall.ECONNREFUSED, "nothing listens on port %d in the VM", port).By(fault.Program)
	}
	return dialTCP(ctx, addr)
}

func (a *stubAwake) Release() {
	a.freed.Store(true)
	if !a.of.quick {
		time.Sleep(time.Millisecond) // for whoever does not wait
	}
	a.of.held.Add(-1)
	a.of.released.Add(1)
}

// front is a router with a client that reaches it under any name.
type front struct {
	*Front

	stub *stubInstances
	addr string
	http *http.Client
}

// newTestFront serves a router until the test ends.
func newTestFront(tb testing.TB, s *stubInstances) *front {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(tb, err)
	f := &front{Front: NewFront(s, slog.New(slog.DiscardHandler)), stub: s, addr: ln.Addr().String()}
	served := make(chan error, 1)
	go func() { served <- f.Serve(ln) }()
	f.http = f.client(false)
	tb.Cleanup(func() {
		must(tb, f.Close())
		must(tb, <-served)
		if n := s.held.Load(); n != 0 {
			tb.Errorf("%d holds are left", n)
		}
		f.http.CloseIdleConnections()
	})
	return f
}

// client returns a client whose requests all come here.
func (f *front) client(http2 bool) *http.Client {
	p := new(http.Protocols)
	p.SetHTTP1(!http2)
	p.SetUnencryptedHTTP2(http2)
	return &http.Client{Timeout: limit, Transport: &http.Transport{
		Protocols: p, DisableCompression: true, MaxIdleConnsPerHost: 64,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", f.addr)
		},
	}}
}

// settle waits until nobody is held awake, and returns how often somebody was.
func (f *front) settle(t *testing.T) int {
	t.Helper()
	for deadline := time.Now().Add(limit); f.stub.held.Load() != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d holds do not end", f.stub.held.Load())
		}
	}
	return int(f.stub.released.Load())
}

// site serves HTTP until the test ends, and returns its address.
func site(tb testing.TB, h http.HandlerFunc) string {
	tb.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	tb.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// serving is a router in front of one instance, "web", whose port 80 is h.
func serving(tb testing.TB, h http.HandlerFunc) *front {
	tb.Helper()
	s := &stubInstances{programs: map[uint16]string{80: site(tb, h)}}
	s.add("web", instance.Expose{Guest: 80, Protocol: instance.HTTP})
	return newTestFront(tb, s)
}
