package cloudhypervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/host"
	"github.com/xfeldman/aegisvm/internal/vmm/tail"
)

const (
	// startTimeout bounds the time from the process's start to its first answer. It
	// protects callers without a deadline; a busy host takes under a second.
	startTimeout = 60 * time.Second
	// adoptTimeout bounds the first answer of a VMM that should be idle.
	adoptTimeout = 20 * time.Second
	// killTimeout bounds the end of a process after SIGKILL where Start cleans up: a
	// process that hangs in the kernel does not end.
	killTimeout = 20 * time.Second
	// drainTimeout bounds reading what a process that has ended has left.
	drainTimeout = time.Second
	// endGrace is how long a process whose sockets are closed has to be gone.
	endGrace = 5 * time.Second
)

var errReleased = errors.New("the machine was given up by this process")

// Machine is one Cloud Hypervisor process. It implements vmm.Machine.
type Machine struct {
	driver  *Driver
	folder  *host.Folder
	proc    *host.Process
	api     *rest
	model   model
	growth  size.Bytes // promised to it of memoryDir
	console *tail.Log
	words   *tail.Log
	events  events
	pipes   pipes
	reading sync.WaitGroup // the pipes' readers

	ctl, net turn

	op     chan struct{} // held by Pause, Resume and the like, one at a time
	saved  atomic.Bool   // at this pause
	killed atomic.Bool

	mu       sync.Mutex
	memory   *memory // held since the last save, or since a start on it; may be nil
	parting  parting
	released chan struct{} // closed by Release
	ended    chan struct{} // closed when nothing is left; exit and ending are set then
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
func newMachine(d *Driver, f *host.Folder, p *host.Process, from pipes, resume bool) (*Machine, error) {
	m := &Machine{
		driver: d, folder: f, proc: p, pipes: from, api: newREST(dialer(f, apiName)),
		ctl: newTurn(), net: newTurn(),
		op:       make(chan struct{}, 1),
		released: make(chan struct{}), ended: make(chan struct{}),
	}
	// A VM that resets starts again in the same process. It has no time to get far.
	m.events.rebooted = func() { _ = p.Kill() } // where it fails it has ended
	var err error
	if m.console, err = f.OpenLog(consoleName+logSuffix, resume); err != nil {
		return nil, err
	}
	if m.words, err = f.OpenLog(wordsName+logSuffix, resume); err != nil {
		_ = m.console.Close() // nothing was written
		return nil, err
	}
	m.reading.Go(func() { _, _ = io.Copy(m.console, from.console) }) // ends with the process, or with Release
	m.reading.Go(func() { _, _ = io.Copy(m.words, from.words) })
	m.reading.Go(func() { m.events.read(from.events) })
	go m.watch()
	return m, nil
}

// dialer returns what connects to a socket of a folder.
func dialer(f *host.Folder, name string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) { return f.Dial(ctx, name) }
}

// watch waits for the end of the process and clears up after it. Whoever holds
// the Machine waits for it through ended.
func (m *Machine) watch() {
	status, err := m.proc.Wait()
	if err != nil {
		// The process is gone without a status, as for one that was not our child.
		status = nil
	}
	if m.claim(released) {
		m.finish(status)
	}
	m.proc.Close()
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
	// What it said last is in the pipes, which end with it.
	last := time.Now().Add(drainTimeout)
	for _, p := range m.pipes.named() {
		_ = (*p).SetReadDeadline(last) // pipes have deadlines
	}
	m.reading.Wait()
	m.ending = ending{
		killed: m.killed.Load(), rebooted: m.events.has(eventReboot), orderly: m.events.has(eventEnd), status: status,
		console: m.console.Tail(), stderr: m.words.Tail(),
	}
	m.exit = m.ending.exit()
	m.exit.Console = m.ending.console[max(0, len(m.ending.console)-tail.MaxWords):]
	m.letGo()
	m.unname()
	m.folder.Clear()
	m.folder.Close()
	m.giveBack()
	m.hold(nil).free() // before anybody knows that the machine has ended
	close(m.ended)
}

// letGo closes what belongs to this process alone.
func (m *Machine) letGo() {
	m.pipes.close()
	m.reading.Wait()
	m.api.close()
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
	m.giveBack()
	m.letGo()
	m.folder.Close()
	if !m.proc.Child() {
		m.proc.Close() // ends watch; a child is still reaped
	}
}

// describe says what the machine is, and whether its memory is in memoryDir.
func (m *Machine) describe(is model, named bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.model = is
	if named && is.Owner && m.parting == 0 {
		m.growth = is.Bytes
		m.driver.room.change(m.growth)
	}
}

// giveBack says that the machine writes no more to memoryDir for all that this process
// has to do with it. It is called after claim.
func (m *Machine) giveBack() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.driver.room.change(-m.growth)
	m.growth = 0
}

// adopted says what a machine is that an earlier daemon has started.
func (m *Machine) adopted(is model) {
	named := false
	if f, err := memoryOf(m.proc, is.RAM); err == nil {
		named = inTmpfs(f)
		host.CloseAll(f)
	}
	m.describe(is, named)
}

// hold remembers whose memory the machine has, and returns what was held before.
func (m *Machine) hold(mem *memory) *memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.memory
	m.memory = mem
	return before
}

// connect waits until the VMM answers.
func (m *Machine) connect(ctx context.Context, timeout time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout,
		fault.New(fault.Timeout, "%s did not answer within %v", displayName, timeout).By(fault.Driver).WithHint("aegis doctor"))
	defer cancel()
	return m.api.get(ctx, "vmm.ping", &pingResponse{})
}

// complete looks whether an adopted VMM has a machine, and one that is whole.
func (m *Machine) complete(ctx context.Context) error {
	is, err := m.state(ctx)
	if err != nil {
		return err
	}
	if is != stateRunning && is != statePaused {
		return fmt.Errorf("its machine is %s", is)
	}
	return nil
}

// state returns the state of the VM, such as stateRunning.
func (m *Machine) state(ctx context.Context) (string, error) {
	var info infoResponse
	err := m.api.get(ctx, "vm.info", &info)
	return info.State, err
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
	if m.saved.Load() && m.model.Layered {
		m.flush(ctx)
	}
	if err := m.proc.Kill(); err != nil && m.gone() == nil {
		return fault.Wrap(fault.Internal, err, "kill %s", displayName).By(fault.Driver)
	}
	_, err := m.Wait(ctx)
	return err
}

// flushTimeout bounds the time a VMM has to write down what it knows of its disks.
const flushTimeout = 5 * time.Second

// flush lets a VMM end in good order whose overlays have to be what they are for the
// guest: it keeps their tables in memory until its guest flushes, and a guest that was
// saved takes for written what it has written. Its memory was copied: what becomes of
// the machine changes nothing.
func (m *Machine) flush(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	if m.api.put(ctx, "vmm.shutdown", nil) == nil { // else it ends as others do
		_, _ = m.Wait(ctx)
	}
}

// Usage implements vmm.Machine.
func (m *Machine) Usage() (vmm.Usage, error) {
	if err := m.gone(); err != nil {
		return vmm.Usage{}, err
	}
	mem, err := host.PSS(m.proc.PID)
	if err != nil {
		return vmm.Usage{}, fmt.Errorf("memory of %s: %w", displayName, err)
	}
	return vmm.Usage{Memory: mem, PID: m.proc.PID}, nil
}

// DialGuest implements vmm.Machine.
func (m *Machine) DialGuest(ctx context.Context) (net.Conn, error) {
	return m.dial(ctx, &m.ctl, guestproto.VsockPort)
}

// AttachNetwork implements vmm.Machine.
func (m *Machine) AttachNetwork(ctx context.Context) (net.Conn, error) {
	if !m.model.Card {
		return nil, fault.New(fault.Invalid, "the machine has no network card")
	}
	return m.dial(ctx, &m.net, guestproto.CardPort)
}
