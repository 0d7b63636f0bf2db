package instance

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"

	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// stubShares are workspaces that exist in memory only. They note what happens to them.
type stubShares struct {
	openErr  error
	checkErr error
	mountErr error // of the guest

	mu     sync.Mutex
	made   map[ID]bool
	open   map[ID]bool
	events []string
	twice  bool // two were open for one instance, or cleared while open
}

func newStubShares() *stubShares {
	return &stubShares{made: map[ID]bool{}, open: map[ID]bool{}}
}

func (s *stubShares) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, fmt.Sprintf(format, args...))
}

// happened returns what was noted since it was last asked for.
func (s *stubShares) happened() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.events
	s.events = nil
	return out
}

// left returns how many are open, and how many there are.
func (s *stubShares) left() (open, made int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open), len(s.made)
}

func (s *stubShares) Check(Folders) error { return s.checkErr }

func (s *stubShares) Dir(id ID, _ Folders) string { return "/ws/" + string(id) }

func (s *stubShares) Ensure(id ID, _ Folders) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made[id] = true
	return nil
}

func (s *stubShares) Open(id ID, _ Folders, life Life) (Workspace, error) {
	if s.openErr != nil {
		return nil, s.openErr
	}
	s.note("open %d", life)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.twice = s.twice || s.open[id]
	s.open[id], s.made[id] = true, true
	return &stubShare{of: s, id: id, life: life, over: make(chan struct{})}, nil
}

func (s *stubShares) Files(ID, Folders) (Files, error) { return nil, errors.ErrUnsupported }

func (s *stubShares) Copy(_ context.Context, from, to ID) error {
	s.note("copy %s to %s", from, to)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.made[from] || s.made[to] {
		return errors.New("there is nothing to copy, or something already")
	}
	s.made[to] = true
	return nil
}

func (s *stubShares) Clear(id ID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.twice = s.twice || s.open[id]
	delete(s.made, id)
	return nil
}

type stubShare struct {
	of   *stubShares
	id   ID
	life Life
	once sync.Once
	over chan struct{}
}

func (s *stubShare) Mount() guestproto.Mount {
	return guestproto.Mount{Reconnect: s.life != Begins}
}

func (s *stubShare) Serve(ln net.Listener) error {
	<-s.over
	return ln.Close()
}

func (s *stubShare) Close() error {
	s.once.Do(func() {
		s.of.note("close")
		s.of.mu.Lock()
		delete(s.of.open, s.id)
		s.of.mu.Unlock()
		close(s.over)
	})
	return nil
}

// stubListener is a gateway's port that nobody connects to.
type stubListener struct{ port uint16 }

func (l stubListener) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (l stubListener) Close() error              { return nil }
func (l stubListener) Addr() net.Addr            { return &net.TCPAddr{Port: int(l.port)} }

func (g *stubGuest) Mount(_ context.Context, req guestproto.Mount) error {
	if g.w.shares == nil {
		return errors.New("nothing is served")
	}
	if open, _ := g.w.shares.left(); open == 0 {
		return errors.New("nobody answers on the gateway")
	}
	g.w.shares.note("mount, again %v", req.Reconnect)
	return g.w.shares.mountErr
}

// withShares gives a world workspaces.
func withShares(w *stubWorld) { w.shares = newStubShares() }

func wantEvents(t *testing.T, s *stubShares, want ...string) {
	t.Helper()
	if got := s.happened(); !slices.Equal(got, want) {
		t.Errorf("happened: %q, want %q", got, want)
	}
}
