package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/tail"
)

const (
	// startTimeout bounds the time from QEMU's start to its first answer. It
	// protects callers without a deadline; a busy host takes under a second.
	startTimeout = 60 * time.Second
	// adoptTimeout bounds the first answer of a QEMU that should be idle.
	adoptTimeout = 20 * time.Second
	// killTimeout bounds the end of a process after SIGKILL where Start cleans up: a
	// process that hangs in the kernel does not end.
	killTimeout = 20 * time.Second
	// drainTimeout bounds reading what a process that has ended has left.
	drainTimeout = time.Second
)

var errReleased = errors.New("the machine was given up by this process")

// Machine is one QEMU process. It implements vmm.Machine.
type Machine struct {
	folder  *folder
	proc    *process
	console *tail.Log
	words   *tail.Log
	pipes   []*os.File
	reading sync.WaitGroup // the pipes' readers

	ctl, net port
	network  bool

	op     chan struct{} // held by Pause, Resume and the like, one at a time
	paused bool          // guarded by op
	killed atomic.Bool

	roomFor func(size.Bytes) bool // roomFor, or a test's

	loading bool // when connected: QEMU waited for a saved machine

	mu       sync.Mutex
	mon      *qmp
	memory   *memory // held since the last save, or since a start on it; may be nil
	parting  parting
	released chan struct{} // closed by Release
	ended    chan struct{} // closed when nothing is left; exit and status are set then
	exit     vmm.Exit
	ending   ending
}

// parting is how this process leaves a machine.
type parting int

const (
	finished parting = 1 // the machine has ended
	released parting = 2 // it goes on without this process
)

// newMachine takes charge of a process that runs, of its folder and of the
// reading ends of its pipes.
func newMachine(f *folder, p *process, console, words *os.File, resume bool) (*Machine, error) {
	m := &Machine{
		folder: f, proc: p, pipes: []*os.File{console, words},
		ctl: newPort(ctlName), net: newPort(netName),
		op:       make(chan struct{}, 1),
		released: make(chan struct{}), ended: make(chan struct{}), roomFor: roomFor,
	}
	var err error
	if m.console, err = f.openLog(consoleName+logSuffix, resume); err != nil {
		return nil, err
	}
	if m.words, err = f.openLog(wordsName+logSuffix, resume); err != nil {
		_ = m.console.Close() // nothing was written
		return nil, err
	}
	m.reading.Go(func() { _, _ = io.Copy(m.console, console) }) // ends with the process, or with Release
	m.reading.Go(func() { _, _ = io.Copy(m.words, words) })
	go m.watch()
	return m, nil
}

// watch waits for the end of the process and clears up after it. Whoever holds
// the Machine waits for it through ended.
func (m *Machine) watch() {
	status, err := m.proc.wait()
	if err != nil {
		// The process is gone without a status, as for one that was not our child.
		status = nil
	}
	if m.claim(released) {
		m.finish(status)
	}
	m.proc.close()
}

// claim decides between the two ways in which this process parts from a machine;
// the first wins. It reports whether that was not the other.
func (m *Machine) claim(other parting) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.parting == other {
		return false
	}
	m.parting = finished + released - other
	return true
}

func (m *Machine) finish(status *syscall.WaitStatus) {
	// What it said last is in the pipes and the socket, which end with it, unless it
	// had a child: the sandbox forbids that, but nothing may hang on it.
	last := time.Now().Add(drainTimeout)
	for _, p := range m.pipes {
		_ = p.SetReadDeadline(last) // pipes have deadlines
	}
	m.reading.Wait()
	shutdown := ""
	if mon := m.monitor(); mon != nil {
		_ = mon.conn.SetReadDeadline(last) // so have sockets
		<-mon.done
		shutdown = mon.Shutdown()
		mon.Close()
	}
	m.ending = ending{
		killed: m.killed.Load(), shutdown: shutdown, status: status,
		console: m.console.Tail(), stderr: m.words.Tail(),
	}
	m.exit = m.ending.exit()
	m.exit.Console = m.ending.console[max(0, len(m.ending.console)-tail.MaxWords):]
	m.letGo()
	m.folder.clear()
	m.folder.close()
	m.hold(nil).free() // before anybody knows that the machine has ended
	close(m.ended)
}

// letGo closes what belongs to this process alone.
func (m *Machine) letGo() {
	closeAll(m.pipes...)
	m.reading.Wait()
	_ = m.console.Close() // written for people; the machine's end is not its matter
	_ = m.words.Close()
}

// Release gives the machine up without ending it, as the end of this process
// would. Another Driver may adopt it then. Connections stay open until closed.
func (m *Machine) Release() {
	m.op <- struct{}{}
	defer func() { <-m.op }()
	if m.gone() != nil || !m.claim(finished) {
		return
	}
	close(m.released)
	m.hold(nil).spoil()
	if mon := m.monitor(); mon != nil {
		mon.Close()
	}
	m.letGo()
	m.folder.close()
	if m.proc.child == nil {
		m.proc.close() // ends watch; a child is still reaped
	}
}

// hold remembers whose memory the machine has, and returns what was held before.
func (m *Machine) hold(mem *memory) *memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.memory
	m.memory = mem
	return before
}

func (m *Machine) monitor() *qmp {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mon
}

// connect opens the monitor and waits until QEMU answers on it.
func (m *Machine) connect(ctx context.Context, timeout time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout,
		fault.New(fault.Timeout, "QEMU did not answer within %v", timeout).By(fault.Driver).WithHint("aegis doctor"))
	defer cancel()
	conn, err := m.folder.dial(ctx, qmpName)
	if err != nil {
		return err
	}
	mon, err := newQMP(ctx, conn)
	if err != nil {
		return err
	}
	m.mu.Lock()
	m.mon = mon
	m.mu.Unlock()
	status, err := m.status(ctx)
	m.paused, m.loading = status != running, status == inmigrate
	return err
}

// status returns QEMU's run state, such as "running" or "paused".
func (m *Machine) status(ctx context.Context) (string, error) {
	var s struct{ Status string }
	err := m.monitor().execute(ctx, "query-status", nil, &s)
	return s.Status, err
}

// gone returns why the machine takes no more calls, or nil.
func (m *Machine) gone() error {
	select {
	case <-m.ended:
		return fmt.Errorf("%w: %v", vmm.ErrEnded, m.exit)
	case <-m.released:
		return errReleased
	default:
		return nil
	}
}

// Wait implements vmm.Machine.
func (m *Machine) Wait(ctx context.Context) (vmm.Exit, error) {
	select {
	case <-m.ended:
		return m.exit, nil
	default:
	}
	select {
	case <-m.ended:
		return m.exit, nil
	case <-m.released:
		return vmm.Exit{}, errReleased
	case <-ctx.Done():
		return vmm.Exit{}, context.Cause(ctx)
	}
}

// Kill implements vmm.Machine.
func (m *Machine) Kill(ctx context.Context) error {
	if err := m.gone(); err != nil {
		if errors.Is(err, vmm.ErrEnded) {
			return nil
		}
		return err
	}
	m.killed.Store(true)
	if err := m.proc.kill(); err != nil && m.gone() == nil {
		return fault.Wrap(fault.Internal, err, "kill QEMU").By(fault.Driver)
	}
	_, err := m.Wait(ctx)
	return err
}

// Trouble implements vmm.Troubled.
func (m *Machine) Trouble() error {
	if mon := m.monitor(); mon != nil {
		return mon.Trouble()
	}
	return nil
}

// Suffered implements vmm.Troubled.
func (m *Machine) Suffered() <-chan struct{} {
	if mon := m.monitor(); mon != nil {
		return mon.suffered
	}
	return nil
}

// Usage implements vmm.Machine.
func (m *Machine) Usage() (vmm.Usage, error) {
	if err := m.gone(); err != nil {
		return vmm.Usage{}, err
	}
	mem, err := pss(m.proc.pid)
	if err != nil {
		return vmm.Usage{}, fmt.Errorf("memory of QEMU: %w", err)
	}
	return vmm.Usage{Memory: mem, PID: m.proc.pid}, nil
}

// DialGuest implements vmm.Machine.
func (m *Machine) DialGuest(ctx context.Context) (net.Conn, error) { return m.dial(ctx, &m.ctl) }

// AttachNetwork implements vmm.Machine.
func (m *Machine) AttachNetwork(ctx context.Context) (net.Conn, error) {
	if !m.network {
		return nil, fault.New(fault.Invalid, "the machine has no network card")
	}
	return m.dial(ctx, &m.net)
}
