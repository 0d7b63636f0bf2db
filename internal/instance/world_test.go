package instance

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/guestproto"
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

	mu       sync.Mutex
	machines map[*stubMachine]bool
	ground   map[ID]bool
	boots    int
}

func newStubWorld() *stubWorld {
	return &stubWorld{start: 100 * time.Millisecond, link: time.Second, machines: map[*stubMachine]bool{}, ground: map[ID]bool{}}
}

func (w *stubWorld) world() World {
	return World{Driver: w, Ground: w, Linker: w, Log: slog.New(slog.DiscardHandler), Limits: DefaultLimits()}
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

func (w *stubWorld) Prepare(_ context.Context, id ID, _ Spec) (vmm.Spec, guestproto.Magic, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ground[id] = true
	return vmm.Spec{ID: string(id)}, guestproto.NewMagic(), nil
}

func (w *stubWorld) Clear(id ID) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.ground, id)
	return nil
}

func (w *stubWorld) Dir(id ID) string { return string(id) }

func (w *stubWorld) Leftovers() ([]ID, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return keys(w.ground), nil
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
		return m.exit, nil
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

func (m *stubMachine) Pause(ctx context.Context) error  { return m.op(ctx) }
func (m *stubMachine) Resume(ctx context.Context) error { return m.op(ctx) }
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
func (m *stubMachine) Usage() (vmm.Usage, error) { return vmm.Usage{}, nil }

// stubGuest runs one program that ends with status 7 after a second.
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

func (g *stubGuest) PowerOff(context.Context, time.Duration) error {
	g.m.end(vmm.Exit{Reason: vmm.PoweredOff})
	return nil
}

func (g *stubGuest) Close() error {
	g.once.Do(func() { close(g.shut) })
	return nil
}

func (g *stubGuest) Attach(context.Context, guestproto.ExecID, uint64) (Attachment, error) {
	return &stubProgram{g: g, frames: []frame.Frame{{Type: frame.Exit, Payload: frame.EncodeStatus(7)}}}, nil
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
	case <-time.After(time.Second):
	}
	f := p.frames[0]
	p.frames = p.frames[1:]
	return f, nil
}

func (p *stubProgram) Send(frame.Frame) error { return nil }
func (p *stubProgram) Close() error           { return nil }
