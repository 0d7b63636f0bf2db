package instance

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// stubNets makes networks whose guests listen where ports says, and answer nothing.
type stubNets struct {
	w       *stubWorld
	openErr error

	mu    sync.Mutex
	ports map[uint16]stubPort
	nets  map[*stubNet]bool
	dials int
}

// stubPort says how a program listens.
type stubPort struct {
	after    time.Duration // counted from its start
	loopback bool          // only there
	err      error         // of a dial, instead
}

func newStubNets(w *stubWorld) *stubNets {
	return &stubNets{w: w, ports: map[uint16]stubPort{80: {}}, nets: map[*stubNet]bool{}}
}

// set changes how programs listen on a port.
func (s *stubNets) set(port uint16, p stubPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ports[port] = p
}

// quiet lets programs listen nowhere.
func (s *stubNets) quiet() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.ports)
}

// left returns how many networks and connections there are.
func (s *stubNets) left() (nets, conns int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := range s.nets {
		nets++
		conns += len(n.conns)
	}
	return nets, conns
}

func (s *stubNets) Check(Egress) error { return nil }

func (s *stubNets) Open(id ID, spec Spec, denied func(Denial)) (Network, error) {
	if s.openErr != nil {
		return nil, s.openErr
	}
	n := &stubNet{of: s, dir: string(id), egress: spec.Egress, denied: denied, conns: map[*stubConn]bool{}, over: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nets[n] = true
	return n, nil
}

// dial connects to the guest of a machine. Its answer takes as long to come as the
// question.
func (s *stubNets) dial(ctx context.Context, dir string, port uint16, loopback bool) (net.Conn, error) {
	if err := nap(ctx, time.Millisecond); err != nil {
		return nil, err
	}
	c, err := s.ask(ctx, dir, port, loopback)
	if late := nap(ctx, time.Millisecond); late != nil && c != nil {
		return nil, errors.Join(late, c.Close())
	}
	return c, err
}

// ask has the guest of a machine answer; one that stands still does not.
func (s *stubNets) ask(ctx context.Context, dir string, port uint16, loopback bool) (net.Conn, error) {
	for s.w.standsStill(dir) {
		if err := nap(ctx, time.Millisecond); err != nil {
			return nil, err
		}
	}
	s.w.mu.Lock()
	runs := time.Since(s.w.spawned)
	s.w.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dials++
	p, listens := s.ports[port]
	if !listens || runs < p.after || p.loopback != loopback {
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	}
	if p.err != nil {
		return nil, p.err
	}
	for n := range s.nets {
		if n.dir == dir {
			return n.accept(), nil
		}
	}
	return nil, net.ErrClosed
}

func (w *stubWorld) standsStill(dir string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for m := range w.machines {
		if m.dir == dir {
			return m.paused.Load()
		}
	}
	return false
}

type stubNet struct {
	of    *stubNets
	dir   string
	conns map[*stubConn]bool
	once  sync.Once
	over  chan struct{}

	egress  Egress       // guarded by of.mu
	denied  func(Denial) // by its guest
	traffic Traffic      // guarded by of.mu
}

func (n *stubNet) Traffic() Traffic {
	n.of.mu.Lock()
	defer n.of.mu.Unlock()
	return n.traffic
}

func (n *stubNet) SetEgress(e Egress) {
	n.of.mu.Lock()
	defer n.of.mu.Unlock()
	n.egress = e
}

func (n *stubNet) Attach(card net.Conn) { _ = card.Close() }

func (n *stubNet) Crossed() uint64 {
	n.of.w.mu.Lock()
	defer n.of.w.mu.Unlock()
	return n.of.w.crossed
}

func (n *stubNet) Listen(port uint16) (net.Listener, error) { return stubListener{port}, nil }

func (n *stubNet) Dial(ctx context.Context, port uint16) (net.Conn, error) {
	select {
	case <-n.over:
		return nil, net.ErrClosed
	default:
		return n.of.dial(ctx, n.dir, port, false)
	}
}

func (n *stubNet) Close() error {
	n.once.Do(func() {
		close(n.over)
		n.of.mu.Lock()
		delete(n.of.nets, n)
		conns := keys(n.conns)
		n.of.mu.Unlock()
		for _, c := range conns {
			_ = c.Close()
		}
	})
	return nil
}

// accept makes a connection. The caller holds mu.
func (n *stubNet) accept() net.Conn {
	host, guest := net.Pipe()
	c := &stubConn{Conn: host, guest: guest, of: n}
	n.conns[c] = true
	return c
}

// stubConn is a connection to a guest that is silent.
type stubConn struct {
	net.Conn

	guest net.Conn
	of    *stubNet
}

func (c *stubConn) CloseWrite() error { return nil }

func (c *stubConn) Close() error {
	c.of.of.mu.Lock()
	delete(c.of.conns, c)
	c.of.of.mu.Unlock()
	_ = c.guest.Close()
	return c.Conn.Close()
}

// stubDoors opens ports of a host that exists in memory only.
type stubDoors struct {
	mu    sync.Mutex
	open  map[*stubDoor]bool
	all   []*stubDoor     // that were ever opened
	taken map[uint16]bool // by other programs
	next  uint16
}

func newStubDoors() *stubDoors {
	return &stubDoors{open: map[*stubDoor]bool{}, taken: map[uint16]bool{}, next: 20000}
}

// take gives a port to another program, or takes it back.
func (s *stubDoors) take(port uint16, taken bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken[port] = taken
}

func (s *stubDoors) Open(at netip.AddrPort, connect Connect) (Door, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at.Port() == 0 {
		s.next++
		at = netip.AddrPortFrom(at.Addr(), s.next)
	}
	want := Expose{Public: at.Port(), Bind: at.Addr()}
	for d := range s.open {
		if want.clashes(Expose{Public: d.at.Port(), Bind: d.at.Addr()}) {
			return nil, fault.Wrap(fault.Conflict, syscall.EADDRINUSE, "port %d is taken by another program", at.Port())
		}
	}
	if s.taken[at.Port()] {
		return nil, fault.Wrap(fault.Conflict, syscall.EADDRINUSE, "port %d is taken by another program", at.Port())
	}
	d := &stubDoor{of: s, at: at, connect: connect}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	s.open[d] = true
	s.all = append(s.all, d)
	return d, nil
}

// at returns the door at a port, or nil.
func (s *stubDoors) at(port uint16) *stubDoor {
	s.mu.Lock()
	defer s.mu.Unlock()
	for d := range s.open {
		if d.at.Port() == port {
			return d
		}
	}
	return nil
}

// left returns how many doors are open, or have been closed without anybody who waits
// for their connections.
func (s *stubDoors) left() (open, forgotten int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.all {
		switch {
		case s.open[d]:
			open++
		case !d.waited.Load():
			forgotten++
		}
	}
	return open, forgotten
}

type stubDoor struct {
	of      *stubDoors
	at      netip.AddrPort
	connect Connect
	ctx     context.Context //nolint:containedctx // its life
	cancel  context.CancelFunc

	mu     sync.Mutex
	closed bool
	wg     sync.WaitGroup
	waited atomic.Bool
}

func (d *stubDoor) Port() uint16 { return d.at.Port() }

func (d *stubDoor) Close() error {
	d.of.mu.Lock()
	delete(d.of.open, d)
	d.of.mu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	d.cancel()
	return nil
}

func (d *stubDoor) Wait() {
	d.wg.Wait()
	d.waited.Store(true)
}

// visit is a client that stays for a while. It returns io.EOF when it is cut off.
func (d *stubDoor) visit(ctx context.Context, stay time.Duration) error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return syscall.ECONNREFUSED
	}
	d.wg.Add(1)
	d.mu.Unlock()
	defer d.wg.Done()
	ctx, done := joined(ctx, d.ctx)
	defer done()
	c, err := d.connect(ctx)
	if err != nil {
		return err
	}
	cut := make(chan struct{})
	go func() {
		defer close(cut)
		_, _ = c.Read(make([]byte, 1)) // the guest is silent
	}()
	defer func() {
		_ = c.Close()
		<-cut
	}()
	select {
	case <-time.After(stay):
		return nil
	case <-cut:
	case <-d.ctx.Done():
	}
	return io.EOF
}
