package tether

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a store on disk and instances that are entries of a map. Each has an agent,
// which is an HTTP server on pipes.
type world struct {
	t    *testing.T
	path string
	db   *store.Store
	*Tether

	limits Limits

	mu       sync.Mutex
	all      map[instance.ID]*box
	watchers map[chan instance.Change]bool
}

// box is one instance.
type box struct {
	w       *world
	view    instance.View
	holds   int
	wakes   int
	refuse  error // why it does not wake
	agent   *agent
	visited chan struct{} // gets one for each hold that is granted
	idle    chan struct{} // gets one whenever the last hold is given back
}

// agent takes messages: first refusals are answered 503, and nothing listens before that
// while deaf is set.
type agent struct {
	mu      sync.Mutex
	deaf    bool
	refuses int
	last    int64
	twice   int
	got     chan api.Frame
	server  *http.Server
	conns   chan net.Conn
	over    chan struct{}
}

func newAgent(t *testing.T) *agent {
	t.Helper()
	a := &agent{got: make(chan api.Frame, 100_000), conns: make(chan net.Conn), over: make(chan struct{})}
	a.server = &http.Server{Handler: a, ReadHeaderTimeout: time.Hour}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = a.server.Serve(a)
	}()
	t.Cleanup(func() {
		_ = a.server.Close()
		<-done
	})
	return a
}

func (a *agent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var f api.Frame
	if err := json.NewDecoder(r.Body).Decode(&f); err != nil || r.URL.Path != "/v1/tether/recv" || r.Method != http.MethodPost {
		http.Error(w, "?", http.StatusBadRequest)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.deaf || a.refuses > 0 {
		a.refuses--
		http.Error(w, "not yet", http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusNoContent)
	if f.Seq <= a.last {
		a.twice++
		return
	}
	a.last = f.Seq
	a.got <- f
}

// Accept implements net.Listener.
func (a *agent) Accept() (net.Conn, error) {
	select {
	case c := <-a.conns:
		return c, nil
	case <-a.over:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (a *agent) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	select {
	case <-a.over:
	default:
		close(a.over)
	}
	return nil
}

// Addr implements net.Listener.
func (a *agent) Addr() net.Addr { return &net.TCPAddr{} }

func (a *agent) dial(ctx context.Context) (net.Conn, error) {
	a.mu.Lock()
	deaf := a.deaf
	a.mu.Unlock()
	if deaf {
		return nil, fault.New(fault.Unavailable, "connection refused")
	}
	here, there := net.Pipe()
	select {
	case a.conns <- there:
		return here, nil
	case <-a.over:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, path: filepath.Join(t.TempDir(), "aegis.db"), all: map[instance.ID]*box{}, watchers: map[chan instance.Change]bool{}}
	w.open()
	t.Cleanup(w.shut)
	return w
}

// open begins a daemon's life, shut ends it.
func (w *world) open() {
	w.t.Helper()
	var err error
	if w.db, err = store.Open(context.Background(), w.path); err != nil {
		w.t.Fatal(err)
	}
	w.Tether = New(Options{Rows: w.db, Instances: w, Log: slog.New(slog.DiscardHandler), Limits: w.limits})
	if err := w.Recover(context.Background()); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) shut() {
	w.Close()
	if err := w.db.Close(); err != nil {
		w.t.Error(err)
	}
}

// add makes the instance "a" in a state.
func (w *world) add(s instance.State) *box {
	w.t.Helper()
	return w.addRecord(instance.Record{ID: instance.NewID(), Spec: instance.Spec{Handle: "a", Command: []string{"x"}}, Enabled: true, Magic: guestproto.NewMagic()}, s)
}

func (w *world) addRecord(r instance.Record, s instance.State) *box {
	w.t.Helper()
	if err := w.db.SaveInstance(context.Background(), r); err != nil {
		w.t.Fatal(err)
	}
	b := &box{w: w, view: instance.View{Record: r, State: s}, agent: newAgent(w.t), visited: make(chan struct{}, 1000), idle: make(chan struct{}, 1000)}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all[r.ID] = b
	return b
}

func (b *box) id() instance.ID { return b.view.ID }

// become puts an instance into a state, as a user would.
func (b *box) become(s instance.State) { b.becomes(s, "") }

// becomes puts an instance into a state, and says why.
func (b *box) becomes(s instance.State, why string) {
	b.w.mu.Lock()
	defer b.w.mu.Unlock()
	b.becomeLocked(s, why)
}

func (b *box) becomeLocked(s instance.State, why string) {
	from := b.view.State
	b.view.State = s
	if s == instance.Deleted {
		delete(b.w.all, b.view.ID)
	}
	for c := range b.w.watchers {
		c <- instance.Change{ID: b.view.ID, From: from, To: s, Why: why}
	}
}

func (b *box) held() int {
	b.w.mu.Lock()
	defer b.w.mu.Unlock()
	return b.holds
}

// Get implements Instances.
func (w *world) Get(ref string) (instance.View, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, b := range w.all {
		if string(id) == ref || b.view.Spec.Handle == ref {
			return b.view, nil
		}
	}
	return instance.View{}, fault.New(fault.NotFound, "there is no instance %q", ref)
}

// Watch implements Instances.
func (w *world) Watch() (<-chan instance.Change, func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := make(chan instance.Change, 1000)
	w.watchers[c] = true
	return c, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.watchers, c)
	}
}

// Visit implements Instances.
func (w *world) Visit(_ context.Context, ref, _ string) (Visit, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := w.all[instance.ID(ref)]
	switch {
	case b == nil:
		return nil, fault.New(fault.NotFound, "there is no instance %q", ref)
	case b.refuse != nil:
		return nil, b.refuse
	case b.view.State != instance.Running:
		b.wakes++
		b.view.Hibernated = false
		b.becomeLocked(instance.Running, "done")
	}
	b.holds++
	b.visited <- struct{}{}
	return &stay{box: b}, nil
}

// stay is a hold.
type stay struct {
	box  *box
	once sync.Once

	mu    sync.Mutex
	conns []net.Conn
}

func (s *stay) DialLocal(ctx context.Context, port uint16) (net.Conn, error) {
	if port != AgentPort {
		return nil, fmt.Errorf("dialled port %d", port)
	}
	c, err := s.box.agent.dial(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns = append(s.conns, c)
	return c, nil
}

func (s *stay) Release() {
	s.once.Do(func() {
		s.mu.Lock()
		for _, c := range s.conns {
			_ = c.Close()
		}
		s.mu.Unlock()
		s.box.w.mu.Lock()
		defer s.box.w.mu.Unlock()
		if s.box.holds--; s.box.holds == 0 {
			s.box.idle <- struct{}{}
		}
	})
}

func text(session, s string) api.Frame {
	b, _ := json.Marshal(api.UserMessage{Text: s}) // strings
	return api.Frame{Type: api.FrameUserMessage, Session: api.Session{Channel: "host", ID: session}, Payload: b}
}

func done(session, s, replyTo string) api.Frame {
	b, _ := json.Marshal(api.AssistantMessage{Text: s, ReplyTo: replyTo}) // strings
	return api.Frame{Type: api.FrameDone, Session: api.Session{Channel: "host", ID: session}, Payload: b}
}

func part(session, s string) api.Frame {
	b, _ := json.Marshal(api.Delta{Text: s}) // strings
	return api.Frame{Type: api.FrameDelta, Session: api.Session{Channel: "host", ID: session}, Payload: b}
}

func (w *world) send(b *box, f api.Frame) api.TetherSent {
	w.t.Helper()
	sent, err := w.Send(context.Background(), string(b.id()), f)
	if err != nil {
		w.t.Fatal(err)
	}
	return sent
}

func (w *world) emit(b *box, f api.Frame) api.Frame {
	w.t.Helper()
	out, err := w.Emit(context.Background(), b.id(), f)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// receive returns the next frame that an agent is given.
func (b *box) receive() api.Frame {
	b.w.t.Helper()
	select {
	case f := <-b.agent.got:
		return f
	case <-time.After(time.Minute):
		b.w.t.Fatal("the agent gets nothing")
	}
	return api.Frame{}
}

func textOf(f api.Frame) string {
	var m struct {
		Text string `json:"text"`
	}
	_ = json.Unmarshal(f.Payload, &m) // "" then, which is looked at
	return m.Text
}
