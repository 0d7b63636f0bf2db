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
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
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
	reopenErr   error // of a guest that is woken
	spawnErr    error
	saveErr     error
	restoreErr  error
	template    bool          // starts are clones
	saving      time.Duration // how long a save takes
	dieAfter    time.Duration // 0 is never
	thaw        time.Duration // how long a Thaw takes
	trouble     error         // of machines
	late        time.Duration // by how much Wait tells of an end after the link has seen it
	runs        time.Duration // of a program
	execs       time.Duration // of other commands; 0 is as long
	status      int32         // of a program

	storeErr error // of SaveInstance
	cardErr  error // of AttachNetwork

	mu       sync.Mutex
	machines map[*stubMachine]bool
	ground   map[ID]bool
	records  map[ID]Record
	logs     map[ID]*stubLog
	saved    map[ID]bool
	boots    int
	wakes    int
	resumes  int
	thaws    int
	freezes  int
	spawned  time.Time // the last program
	asked    guestproto.Spawn
	load     float64       // what its programs use of one CPU
	used     time.Duration // of CPU, until measured
	measured time.Time
	crossed  uint64 // bytes, the network
	images   Images
	api      GuestAPI
	calls    chan net.Conn // connections of programs to the Guest API; nil is a guest without
	nets     *stubNets
	doors    *stubDoors
	shares   *stubShares // nil is none
	archive  *stubArchive
	greeted  []guestproto.Hello // by Link, in their order
	opened   []guestproto.Magic
}

func newStubWorld() *stubWorld {
	w := &stubWorld{start: 100 * time.Millisecond, link: time.Second, runs: time.Second, status: 7, machines: map[*stubMachine]bool{}, ground: map[ID]bool{}, records: map[ID]Record{}, logs: map[ID]*stubLog{}, saved: map[ID]bool{}, saving: 300 * time.Millisecond}
	w.nets, w.doors = newStubNets(w), newStubDoors()
	w.archive = newStubArchive(w)
	return w
}

func (w *stubWorld) world() World {
	world := World{Driver: w, Ground: w, Linker: w, Store: w, Logs: w, Archive: w.archive, Networks: w.nets, Doors: w.doors, Images: w.images, GuestAPI: w.api, Log: slog.New(slog.DiscardHandler), Limits: DefaultLimits()}
	if w.shares != nil {
		world.Workspaces = w.shares
	}
	return world
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

func (w *stubWorld) Prepare(_ context.Context, id ID, _ Spec, _ guestproto.Magic, cold bool) (Plan, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ground[id] = true
	plan := Plan{Recipe: vmm.Spec{ID: string(id)}, Source: vmm.Boot{}}
	switch {
	case cold:
	case w.saved[id]:
		plan.Kind, plan.Source = Wake, vmm.Restore{}
	case w.template:
		plan.Kind, plan.Source = Clone, vmm.Restore{}
	}
	return plan, nil
}

func (w *stubWorld) Started(ID) error { return nil }
func (w *stubWorld) CutOff(ID) bool   { return false }

func (w *stubWorld) Save(ctx context.Context, id ID, _ vmm.Machine) error {
	if err := nap(ctx, w.saving); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.saveErr != nil {
		return w.saveErr
	}
	w.saved[id] = true
	return nil
}

func (w *stubWorld) Spend(_ context.Context, id ID) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.saved, id)
	return nil
}

func (w *stubWorld) Saved(id ID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.saved[id]
}

func (w *stubWorld) Clear(id ID) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.ground, id)
	delete(w.saved, id)
	return nil
}

func (w *stubWorld) Tidy(context.Context, ID) error { return nil }

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
	if w.storeErr != nil {
		return errors.Join(nap(ctx, time.Second), w.storeErr)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	r.Spec.Expose = slices.Clone(r.Spec.Expose)
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
func (l *stubLog) Restart() error           { l.offset = 0; return nil }
func (l *stubLog) Skip(offset uint64) error { l.offset = offset; return nil }
func (l *stubLog) Close() error             { return nil }

func (l *stubLog) Lines(context.Context, LogQuery) iter.Seq2[LogLine, error] {
	return func(func(LogLine, error) bool) {}
}

func (w *stubWorld) Info() vmm.Info {
	return vmm.Info{Name: "stub", Abilities: vmm.Abilities{Pause: true, Save: true, Fork: true}}
}

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

func (w *stubWorld) Start(ctx context.Context, spec vmm.Spec, src vmm.Source) (vmm.Machine, error) {
	if err := nap(ctx, w.start); err != nil {
		return nil, err
	}
	if w.startErr != nil {
		return nil, w.startErr
	}
	_, restore := src.(vmm.Restore)
	if restore && w.restoreErr != nil {
		return nil, w.restoreErr
	}
	m := &stubMachine{w: w, dir: spec.ID, over: make(chan struct{})}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.machines[m] = true
	if restore && !w.template {
		w.wakes++
	} else {
		w.boots++
	}
	if w.dieAfter > 0 {
		time.AfterFunc(w.dieAfter, func() { m.end(vmm.Exit{Reason: vmm.Panicked, Detail: "out of luck"}) })
	}
	return m, nil
}

func (w *stubWorld) Link(ctx context.Context, m vmm.Machine, magic guestproto.Magic, hello guestproto.Hello) (Guest, error) {
	if err := nap(ctx, w.link); err != nil {
		return nil, err
	}
	w.mu.Lock()
	w.greeted, w.opened = append(w.greeted, hello), append(w.opened, magic)
	w.mu.Unlock()
	return &stubGuest{w: w, m: m.(*stubMachine), shut: make(chan struct{}), moved: make(chan struct{})}, w.linkErr
}

type stubMachine struct {
	w      *stubWorld
	dir    string
	once   sync.Once
	over   chan struct{}
	exit   vmm.Exit
	paused atomic.Bool
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

func (m *stubMachine) Pause(ctx context.Context) error {
	err := m.op(ctx)
	m.paused.Store(err == nil)
	return err
}

func (m *stubMachine) Resume(ctx context.Context) error {
	err := m.op(ctx)
	if err == nil && m.paused.Swap(false) {
		m.w.mu.Lock()
		defer m.w.mu.Unlock()
		m.w.resumes++
	}
	return err
}

func (m *stubMachine) Paused(context.Context) (bool, error) { return m.paused.Load(), nil }
func (m *stubMachine) Kill(context.Context) error {
	m.end(vmm.Exit{Reason: vmm.Killed})
	return nil
}

func (m *stubMachine) DialGuest(context.Context) (net.Conn, error) {
	return nil, errors.ErrUnsupported
}

func (m *stubMachine) AttachNetwork(context.Context) (net.Conn, error) {
	card, _ := net.Pipe() // nothing goes over it
	return card, m.w.cardErr
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
	once sync.Once
	shut chan struct{}

	mu    sync.Mutex
	m     *stubMachine
	moved chan struct{}
}

func (g *stubGuest) Spawn(_ context.Context, req guestproto.Spawn) error {
	if req.ID == guestproto.ProgramID {
		g.w.mu.Lock()
		defer g.w.mu.Unlock()
		g.w.spawned, g.w.asked = time.Now(), req
		if g.w.shares != nil {
			g.w.shares.note("spawn")
		}
	}
	return g.w.spawnErr
}

// Stats has the guest's programs use what the world says, from the start of time.
func (g *stubGuest) Stats(context.Context) (guestproto.Stats, error) {
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	g.w.used += time.Duration(g.w.load * float64(time.Since(g.w.measured)))
	g.w.measured = time.Now()
	return guestproto.Stats{CPUUS: 1 + g.w.used.Microseconds()}, nil
}

func (g *stubGuest) Kill(context.Context, guestproto.ExecID, int) error {
	return nil
}

func (g *stubGuest) Harness() string { return "1.0" }

func (g *stubGuest) Dial(ctx context.Context, addr string) (net.Conn, error) {
	_, text, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return nil, err
	}
	dir, err := g.dir(ctx)
	if err != nil {
		return nil, err
	}
	c, err := g.w.nets.dial(ctx, dir, uint16(port), true)
	if errors.Is(err, syscall.ECONNREFUSED) {
		err = fault.Wrap(fault.Unavailable, err, "dial %s", addr)
	}
	return c, err
}

func (g *stubGuest) AcceptAPI(ctx context.Context) (net.Conn, error) {
	if g.w.calls == nil {
		return nil, fault.New(fault.Unavailable, "no Guest API")
	}
	select {
	case c := <-g.w.calls:
		return c, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (g *stubGuest) Thaw(ctx context.Context) error {
	g.w.mu.Lock()
	g.w.thaws++
	g.w.mu.Unlock()
	return nap(ctx, g.w.thaw)
}

func (g *stubGuest) Freeze(context.Context, time.Duration) ([]string, error) {
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	g.w.freezes++
	return nil, nil
}

// Suspend parts the guest from its machine; its program waits with it.
func (g *stubGuest) Suspend() { g.move(nil) }

func (g *stubGuest) Reopen(ctx context.Context, m vmm.Machine, _ guestproto.Hello) error {
	if err := nap(ctx, g.w.link); err != nil {
		return err
	}
	if g.w.reopenErr != nil {
		return g.w.reopenErr
	}
	g.move(m.(*stubMachine))
	return nil
}

func (g *stubGuest) move(m *stubMachine) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.m = m
	close(g.moved)
	g.moved = make(chan struct{})
}

// dir waits until the guest has a machine, as requests over a link do, and returns
// its folder.
func (g *stubGuest) dir(ctx context.Context) (string, error) {
	for {
		g.mu.Lock()
		m, moved := g.m, g.moved
		g.mu.Unlock()
		if m != nil {
			return m.dir, nil
		}
		select {
		case <-moved:
		case <-g.shut:
			return "", net.ErrClosed
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

// over returns what is closed when the machine ends, nil while there is none, and what
// is closed when that changes.
func (g *stubGuest) over() (over, moved <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.m == nil {
		return nil, g.moved
	}
	return g.m.over, g.moved
}

func (g *stubGuest) PowerOff(context.Context, time.Duration) error {
	g.mu.Lock()
	m := g.m
	g.mu.Unlock()
	m.end(vmm.Exit{Reason: vmm.PoweredOff})
	return nil
}

func (g *stubGuest) Close() error {
	g.once.Do(func() { close(g.shut) })
	return nil
}

func (g *stubGuest) Attach(_ context.Context, id guestproto.ExecID, _ uint64) (Attachment, error) {
	runs := g.w.runs
	if id != guestproto.ProgramID && g.w.execs > 0 {
		runs = g.w.execs
	}
	return &stubProgram{g: g, runs: runs, frames: []frame.Frame{{Type: frame.Exit, Payload: frame.EncodeStatus(g.w.status)}}}, nil
}

type stubProgram struct {
	g      *stubGuest
	runs   time.Duration
	frames []frame.Frame
}

func (p *stubProgram) Recv() (frame.Frame, error) {
	if len(p.frames) == 0 {
		return frame.Frame{}, io.EOF
	}
	end := time.After(p.runs)
	for running := true; running; {
		over, moved := p.g.over()
		select {
		case <-p.g.shut:
			return frame.Frame{}, net.ErrClosed
		case <-over:
			return frame.Frame{}, fmt.Errorf("dial the guest: %w", vmm.ErrEnded)
		case <-moved:
		case <-end:
			running = false
		}
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

// copy lasts as long as a command runs, or until the machine ends.
func (g *stubGuest) copy() ([]string, error) {
	runs := g.w.runs
	if g.w.execs > 0 {
		runs = g.w.execs
	}
	select {
	case <-g.shut:
		return nil, net.ErrClosed
	case <-time.After(runs):
	}
	return []string{"note"}, nil
}
