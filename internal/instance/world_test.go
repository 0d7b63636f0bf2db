package instance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// stubWorld is a world in which everything takes time and may fail, for tests of
// the actor under synctest. It counts what exists.
type stubWorld struct {
	start, link time.Duration
	startErr    error
	linkErr     error
	spawnErr    error
	dieAfter    time.Duration // 0 is never
	thaw        time.Duration // how long a Thaw takes
	saveErr     error         // of the store, after a while
	trouble     error         // of machines
	late        time.Duration // by how much Wait tells of an end after the link has seen it
	runs        time.Duration // of a program
	status      int32         // of a program

	mu       sync.Mutex
	machines map[*stubMachine]bool
	ground   map[ID]bool
	records  map[ID]Record
	logs     map[ID]*stubLog
	boots    int
	thaws    int
}

func newStubWorld() *stubWorld {
	return &stubWorld{start: 100 * time.Millisecond, link: time.Second, runs: time.Second, status: 7, machines: map[*stubMachine]bool{}, ground: map[ID]bool{}, records: map[ID]Record{}, logs: map[ID]*stubLog{}}
}

func (w *stubWorld) world() World {
	return World{Driver: w, Ground: w, Linker: w, Store: w, Logs: w, Log: slog.New(slog.DiscardHandler), Limits: DefaultLimits()}
}

func (w *stubWorld) left() (machines, ground int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.machines), len(w.ground)
}

func nap(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (w *stubWorld) Prepare(_ context.Context, id ID, _ Spec, _ guestproto.Magic) (vmm.Spec, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ground[id] = true
	return vmm.Spec{ID: string(id)}, nil
}

func (w *stubWorld) Clear(id ID) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.ground, id)
	return nil
}

func (w *stubWorld) DiskUse(ID) (size.Bytes, error) { return 0, nil }

func (w *stubWorld) Dir(id ID) string { return string(id) }

func (w *stubWorld) Leftovers() ([]ID, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return keys(w.ground), nil
}

func (w *stubWorld) LoadInstances(context.Context) ([]Record, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Collect(maps.Values(w.records)), nil
}

func (w *stubWorld) SaveInstance(ctx context.Context, r Record) error {
	if w.saveErr != nil {
		return errors.Join(nap(ctx, time.Second), w.saveErr)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.records[r.ID] = r
	return nil
}

func (w *stubWorld) DeleteInstance(_ context.Context, id ID) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.records, id)
	return nil
}

func (w *stubWorld) Open(id ID) (Log, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.logs[id] == nil {
		w.logs[id] = &stubLog{}
	}
	return w.logs[id], nil
}

// stubLog keeps what was stored as text.
type stubLog struct {
	mu     sync.Mutex
	text   strings.Builder
	offset uint64
}

func (l *stubLog) add(s string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.WriteString(s)
	return nil
}

func (l *stubLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *stubLog) Program(_ frame.Type, data []byte, offset uint64) error {
	l.offset = offset
	return l.add(string(data))
}

func (l *stubLog) Exec(_ guestproto.ExecID, _ frame.Type, data []byte) error {
	return l.add(string(data))
}
func (l *stubLog) System(text string) error { return l.add("[system] " + text + "\n") }
func (l *stubLog) End(text string) error    { return l.add("[system] " + text + "\n") }
func (l *stubLog) Offset() uint64           { return l.offset }
func (l *stubLog) Restart()                 { l.offset = 0 }
func (l *stubLog) Close() error             { return nil }

func (l *stubLog) Lines(context.Context, LogQuery) iter.Seq2[LogLine, error] {
	return func(func(LogLine, error) bool) {}
}

func (w *stubWorld) Info() vmm.Info { return vmm.Info{Name: "stub"} }

func (w *stubWorld) Adopt(_ context.Context, dir string) (vmm.Machine, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for m := range w.machines {
		if m.dir == dir {
			return m, nil
		}
	}
	return nil, vmm.ErrEnded
}

func (w *stubWorld) Start(ctx context.Context, spec vmm.Spec, _ vmm.Source) (vmm.Machine, error) {
	if err := nap(ctx, w.start); err != nil {
		return nil, err
	}
	if w.startErr != nil {
		return nil, w.startErr
	}
	m := &stubMachine{w: w, dir: spec.ID, over: make(chan struct{})}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.machines[m] = true
	w.boots++
	if w.dieAfter > 0 {
		time.AfterFunc(w.dieAfter, func() { m.end(vmm.Exit{Reason: vmm.Panicked, Detail: "out of luck"}) })
	}
	return m, nil
}

func (w *stubWorld) Link(ctx context.Context, m vmm.Machine, _ guestproto.Magic, _ guestproto.Hello) (Guest, error) {
	if err := nap(ctx, w.link); err != nil {
		return nil, err
	}
	return &stubGuest{w: w, m: m.(*stubMachine), shut: make(chan struct{})}, w.linkErr
}

type stubMachine struct {
	w    *stubWorld
	dir  string
	once sync.Once
	over chan struct{}
	exit vmm.Exit
}

func (m *stubMachine) end(e vmm.Exit) {
	m.once.Do(func() {
		m.w.mu.Lock()
		defer m.w.mu.Unlock()
		delete(m.w.machines, m)
		m.exit = e
		close(m.over)
	})
}

func (m *stubMachine) Wait(ctx context.Context) (vmm.Exit, error) {
	select {
	case <-m.over:
		return m.exit, nap(context.WithoutCancel(ctx), m.w.late)
	case <-ctx.Done():
		return vmm.Exit{}, context.Cause(ctx)
	}
}

func (m *stubMachine) op(ctx context.Context) error {
	select {
	case <-m.over:
		return vmm.ErrEnded
	default:
		return nap(ctx, 10*time.Millisecond)
	}
}

func (m *stubMachine) Pause(ctx context.Context) error      { return m.op(ctx) }
func (m *stubMachine) Resume(ctx context.Context) error     { return m.op(ctx) }
func (m *stubMachine) Paused(context.Context) (bool, error) { return false, nil }
func (m *stubMachine) Kill(context.Context) error {
	m.end(vmm.Exit{Reason: vmm.Killed})
	return nil
}

func (m *stubMachine) DialGuest(context.Context) (net.Conn, error) {
	return nil, errors.ErrUnsupported
}

func (m *stubMachine) AttachNetwork(context.Context) (net.Conn, error) {
	return nil, errors.ErrUnsupported
}
func (m *stubMachine) Trouble() error { return m.w.trouble }
func (m *stubMachine) Suffered() <-chan struct{} {
	c := make(chan struct{})
	if m.w.trouble != nil {
		close(c)
	}
	return c
}
func (m *stubMachine) Usage() (vmm.Usage, error) { return vmm.Usage{}, nil }

// stubGuest runs programs that end after a while.
type stubGuest struct {
	w    *stubWorld
	m    *stubMachine
	once sync.Once
	shut chan struct{}
}

func (g *stubGuest) Spawn(context.Context, guestproto.Spawn) error { return g.w.spawnErr }
func (g *stubGuest) Kill(context.Context, guestproto.ExecID, int) error {
	return nil
}

func (g *stubGuest) Harness() string { return "1.0" }

func (g *stubGuest) Thaw(ctx context.Context) error {
	g.w.mu.Lock()
	g.w.thaws++
	g.w.mu.Unlock()
	return nap(ctx, g.w.thaw)
}

func (g *stubGuest) PowerOff(context.Context, time.Duration) error {
	g.m.end(vmm.Exit{Reason: vmm.PoweredOff})
	return nil
}

func (g *stubGuest) Close() error {
	g.once.Do(func() { close(g.shut) })
	return nil
}

func (g *stubGuest) Attach(context.Context, guestproto.ExecID, uint64) (Attachment, error) {
	return &stubProgram{g: g, frames: []frame.Frame{{Type: frame.Exit, Payload: frame.EncodeStatus(g.w.status)}}}, nil
}

type stubProgram struct {
	g      *stubGuest
	frames []frame.Frame
}

func (p *stubProgram) Recv() (frame.Frame, error) {
	if len(p.frames) == 0 {
		return frame.Frame{}, io.EOF
	}
	select {
	case <-p.g.shut:
		return frame.Frame{}, net.ErrClosed
	case <-p.g.m.over:
		return frame.Frame{}, fmt.Errorf("dial the guest: %w", vmm.ErrEnded)
	case <-time.After(p.g.w.runs):
	}
	f := p.frames[0]
	p.frames = p.frames[1:]
	return f, nil
}

func (p *stubProgram) Offset() uint64 { return 0 }

func (p *stubProgram) Send(frame.Frame) error { return nil }
func (p *stubProgram) Close() error           { return nil }

func (g *stubGuest) CopyOut(context.Context, guestproto.Copy, io.Writer) ([]string, error) {
	return g.copy()
}

func (g *stubGuest) CopyIn(context.Context, guestproto.Copy, io.ReadCloser) ([]string, error) {
	return g.copy()
}

// copy lasts as long as a program runs, or until the machine ends.
func (g *stubGuest) copy() ([]string, error) {
	select {
	case <-g.shut:
		return nil, net.ErrClosed
	case <-time.After(g.w.runs):
	}
	return []string{"note"}, nil
}
