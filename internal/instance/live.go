package instance

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/logattr"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// live is one run of an instance's memory: from a boot to the end of the machine. When
// the memory is saved and started again it is the same run, in another body: the link
// to the guest, the program's output and commands under way go on.
type live struct {
	guest   Guest
	program Attachment
	harness atomic.Value   // string: the build version of the guest's PID 1
	pumps   sync.WaitGroup // what stores the program's output; ends with the run
	over    atomic.Bool    // the program's end is in the log
	wires   *wires

	started time.Time   // the program, or when it was found running
	slept   time.Time   // since when the vCPUs stand still; of the last pause
	moved   bool        // the guest's machine is another than that of its link; only operations touch it
	asked   atomic.Bool // its end was asked for, whether or not it got so far by itself

	once sync.Once
	gone chan struct{} // closed when the run has ended; why is set then
	why  error

	mu      sync.Mutex
	body    *body               // nil while only the memory exists, on disk
	orphans []guestproto.ExecID // to be killed when the guest is awake
}

// body is a machine with what belongs to it alone.
type body struct {
	machine vmm.Machine
	network Network
	heir    *body         // what it hands network and folders on to; guarded by live.mu
	share   *share        // the instance's folders, nil while they are not served
	over    chan struct{} // closed when the machine has ended; exit is set then
	exit    vmm.Exit
}

func newLive() *live {
	return &live{gone: make(chan struct{}), started: time.Now(), wires: newWires()}
}

// current returns the run's machine, nil while it has none.
func (l *live) current() *body {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.body
}

func (l *live) embody(b *body) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.body = b
}

// outlives reports whether the run goes on although its machine b has ended: its
// memory was saved before.
func (l *live) outlives(b *body) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.body != b
}

// outlast waits until a body has ended, and those that went on with what it had, or until they
// are let go. It returns the last of them.
func (a *actor) outlast(l *live, b *body) *body {
	for {
		select {
		case <-b.over:
		case <-a.left:
			return b
		}
		l.mu.Lock()
		heir := b.heir
		l.mu.Unlock()
		if heir == nil {
			return b
		}
		b = heir
	}
}

// end ends a run, once.
func (l *live) end(why error) {
	l.once.Do(func() {
		l.why = why
		close(l.gone)
	})
}

// disown notes an exec that the guest could not be told to kill.
func (l *live) disown(id guestproto.ExecID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.orphans = append(l.orphans, id)
}

// reap kills what was disowned while the guest slept.
func (l *live) reap(ctx context.Context) {
	l.mu.Lock()
	ids := l.orphans
	l.orphans = nil
	l.mu.Unlock()
	for _, id := range ids {
		if err := l.guest.Kill(ctx, id, 9); err != nil {
			l.disown(id)
		}
	}
}

func (l *live) isGone() bool {
	select {
	case <-l.gone:
		return true
	default:
		return false
	}
}

// endedBy reports whether err, of the link or the driver, is the run's end. The link
// can see that end before the one who watches the machine, who says why.
func (l *live) endedBy(err error) bool {
	if b := l.current(); b != nil && errors.Is(err, vmm.ErrEnded) {
		<-b.over // at once: the driver knows that it has ended
	}
	return l.isGone()
}

// trouble returns what the guest has suffered from its host, as far as the driver
// knows.
func (l *live) trouble() error {
	if b := l.current(); b != nil {
		if m, ok := b.machine.(vmm.Troubled); ok {
			return m.Trouble()
		}
	}
	return nil
}

// suffered is closed when trouble begins to tell of something; nil is never.
func (b *body) suffered() <-chan struct{} {
	if m, ok := b.machine.(vmm.Troubled); ok {
		return m.Suffered()
	}
	return nil
}

// sleeps returns the run, whose memory has been saved, or nil if its machine died just
// before that: whoever was connected to it has been told, and a wake joins the guest anew.
func (l *live) sleeps() *live {
	if !l.isGone() {
		return l
	}
	l.pumps.Wait() // they end with the run; the next goes on behind what they store
	return nil
}

// cause tells a person why the run is over.
func (l *live) cause() error { return l.why }

// follow watches a machine that has been started or found. The run ends with it, unless
// it was put to sleep.
func (a *actor) follow(ctx context.Context, l *live, m vmm.Machine) {
	a.followIn(ctx, l, m, &body{over: make(chan struct{})})
}

// followIn is follow, with a body that others know already.
func (a *actor) followIn(ctx context.Context, l *live, m vmm.Machine, b *body) {
	b.machine = m
	l.embody(b)
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	a.ops.Go(func() {
		defer close(b.over)
		defer cancel()
		b.exit, _ = m.Wait(ctx) // the machine ends, or it is let go
		if l.outlives(b) {
			return
		}
		if b.exit.Reason == vmm.Panicked {
			a.quote(ctx, b)
		}
		if b.exit.Reason == vmm.PoweredOff && l.asked.Load() {
			b.exit.Reason = vmm.Killed
		}
		l.end(exitFault(b.exit))
	})
	a.ops.Go(func() {
		select {
		case <-a.left:
			cancel()
		case <-b.over:
		}
	})
	if !a.spec.Ephemeral {
		a.ops.Go(func() { a.tellTrouble(l, b) })
	}
}

// quote logs what a guest that has ended wrote to its console last.
func (a *actor) quote(ctx context.Context, b *body) {
	if b.exit.Console != "" {
		a.log.WarnContext(ctx, "the guest's last words", logattr.Console(b.exit.Console))
	}
}

// link makes the link to the guest, which ends with the run; attachments do too.
func (a *actor) link(ctx context.Context, l *live, magic guestproto.Magic, hello guestproto.Hello) error {
	var err error
	if l.guest, err = a.world.Linker.Link(ctx, l.current().machine, magic, hello); err != nil {
		return err
	}
	l.harness.Store(l.guest.Harness())
	a.serveAPI(l) //nolint:contextcheck // for as long as the run lasts
	a.ops.Go(func() {
		<-l.gone
		_ = l.guest.Close() // there is nobody to tell at its other end
	})
	return nil
}

// attach joins the program's output from offset on; what a persistent instance
// writes is stored from here on.
func (a *actor) attach(ctx context.Context, l *live, offset uint64) error {
	var err error
	if l.program, err = l.guest.Attach(ctx, guestproto.ProgramID, offset); err != nil {
		return err
	}
	if !a.spec.Ephemeral {
		l.pumps.Add(1)
		a.ops.Go(func() {
			defer l.pumps.Done()
			a.pump(context.WithoutCancel(ctx), l)
		})
	}
	return nil
}

// join makes the link to a guest that an earlier daemon had a link to, and goes on
// with the program's output where that one stored it.
func (a *actor) join(ctx context.Context, l *live) error {
	offset := a.output.Offset()
	hello := a.hello()
	hello.Identity = nil // it has one
	hello.Owned = []guestproto.Owned{{Exec: guestproto.ProgramID, Offset: offset}}
	if err := a.link(ctx, l, a.magic, hello); err != nil {
		return err
	}
	a.remount(ctx, l)
	return a.attach(ctx, l, offset)
}
