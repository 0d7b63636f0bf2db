package libkrun

import (
	"bufio"
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

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/tail"
)

var errReleased = errors.New("the machine was given up by this process")

// Machine is one worker process. It implements vmm.Machine.
type Machine struct {
	folder  *folder
	proc    *process
	life    conn
	greeted chan struct{} // closed when the worker has said that the VM starts
	console *tail.Log
	words   *tail.Log
	pipes   []pipe
	reading sync.WaitGroup // the pipes' readers

	ctl, net port
	network  bool

	op     chan struct{} // held by Pause, Resume and Paused, one at a time
	killed atomic.Bool

	mu       sync.Mutex
	parting  parting
	released chan struct{} // closed by Release
	ended    chan struct{} // closed when nothing is left; exit and ending are set then
	exit     vmm.Exit
	ending   ending
}

// pipe is a reading end, and where what comes out of it goes.
type pipe struct {
	from *os.File
	to   *tail.Log
}

// parting is how this process leaves a machine.
type parting int

const (
	finished parting = 1 // the machine has ended
	released parting = 2 // it goes on without this process
)

// newMachine takes charge of a process that runs, of its folder, of a connection to its
// life socket and of the reading ends of its pipes.
func newMachine(f *folder, p *process, life conn, console, words *os.File, resume bool) (*Machine, error) {
	m := &Machine{
		folder: f, proc: p, life: life, greeted: make(chan struct{}),
		ctl: newPort(ctlName), net: newPort(netName),
		op:       make(chan struct{}, 1),
		released: make(chan struct{}), ended: make(chan struct{}),
	}
	var err error
	if m.console, err = f.openLog(consoleName+logSuffix, resume); err != nil {
		return nil, err
	}
	if m.words, err = f.openLog(wordsName+logSuffix, resume); err != nil {
		_ = m.console.Close() // nothing was written
		return nil, err
	}
	m.pipes = []pipe{{console, m.console}, {words, m.words}}
	for _, p := range m.pipes {
		m.reading.Go(func() { _, _ = io.Copy(p.to, p.from) }) // ends with the process, or with Release
	}
	go m.watch()
	return m, nil
}

// watch waits for the end of the process and clears up after it. Whoever holds the
// Machine waits for it through ended.
func (m *Machine) watch() {
	from := bufio.NewReader(m.life)
	if _, err := readHello(from); err == nil {
		close(m.greeted)
		_, _ = io.Copy(io.Discard, from) // ends with the process, or with Release
	}
	if !m.claim(released) {
		m.proc.reap() // a child that another Machine has; nobody else can
		m.proc.close()
		return
	}
	closeConn(m.life)
	m.finish(m.proc.reap())
	m.proc.close() // no earlier: until the machine has ended it may be killed
}

// claim decides between the two ways in which this process parts from a machine; the
// first wins. It reports whether that was not the other.
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
	m.stopReading()
	for _, p := range m.pipes {
		p.drain()
	}
	m.ending = ending{killed: m.killed.Load(), status: status, console: m.console.Tail(), words: m.words.Tail()}
	m.exit = m.ending.exit()
	m.exit.Console = m.ending.console[max(0, len(m.ending.console)-tail.MaxWords):]
	m.letGo()
	m.folder.clear()
	m.folder.close()
	close(m.ended)
}

// stopReading ends the pipes' readers. Not all systems wake them when the last writer
// has gone.
func (m *Machine) stopReading() {
	for _, p := range m.pipes {
		_ = p.from.SetReadDeadline(time.Unix(1, 0)) // a pipe without deadlines ends by itself
	}
	m.reading.Wait()
}

// drain takes what is left in a pipe.
func (p *pipe) drain() {
	raw, err := p.from.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { // an error is that of a pipe that is closed
		buf := make([]byte, tail.MaxFile)
		for {
			n, err := unix.Read(int(fd), buf)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if n <= 0 {
				return
			}
			_, _ = p.to.Write(buf[:n]) // never fails
		}
	})
}

// letGo closes what belongs to this process alone.
func (m *Machine) letGo() {
	for _, p := range m.pipes {
		closeAll(p.from)
		_ = p.to.Close() // written for people; the machine's end is not its matter
	}
}

// Release gives the machine up without ending it, as the end of this process would.
// Another Driver may adopt it then. Connections stay open until closed.
func (m *Machine) Release() {
	m.op <- struct{}{}
	defer func() { <-m.op }()
	if m.gone() != nil || !m.claim(finished) {
		return
	}
	close(m.released)
	closeConn(m.life) // ends watch
	m.stopReading()
	m.letGo()
	m.folder.close()
}

// greet waits for the worker's word that the VM starts.
func (m *Machine) greet(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout,
		fault.New(fault.Timeout, "the worker did not start a VM within %v", startTimeout).By(fault.Driver).WithHint("aegis doctor"))
	defer cancel()
	select {
	case <-m.greeted:
	case <-m.ended:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case <-m.ended:
		if m.exit.Reason == vmm.Died { // libkrun did not like it
			return m.gone()
		}
	default:
	}
	return nil
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

// Kill implements vmm.Machine. It ends a paused machine as well.
func (m *Machine) Kill(ctx context.Context) error {
	if err := m.gone(); err != nil {
		if errors.Is(err, vmm.ErrEnded) {
			return nil
		}
		return err
	}
	m.killed.Store(true)
	if err := m.proc.kill(); err != nil && m.gone() == nil {
		return fault.Wrap(fault.Internal, err, "kill the worker").By(fault.Driver)
	}
	_, err := m.Wait(ctx)
	return err
}

// Usage implements vmm.Machine.
func (m *Machine) Usage() (vmm.Usage, error) {
	if err := m.gone(); err != nil {
		return vmm.Usage{}, err
	}
	mem, err := usedMemory(m.proc.id)
	if err != nil {
		return vmm.Usage{}, fmt.Errorf("memory of the worker: %w", err)
	}
	return vmm.Usage{Memory: mem, PID: m.proc.id}, nil
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
