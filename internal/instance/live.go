package instance

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/logattr"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// live is a machine that runs, with the link to its guest.
type live struct {
	machine vmm.Machine
	guest   Guest
	program Attachment

	started time.Time
	gone    chan struct{} // closed when the machine has ended; exit is set then
	exit    vmm.Exit

	mu      sync.Mutex
	orphans []guestproto.ExecID // to be killed when the guest is awake
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

// endedBy reports whether err, of the link or the driver, is the machine's end. The
// link can see that end before the one who watches the machine, who says why.
func (l *live) endedBy(err error) bool {
	if errors.Is(err, vmm.ErrEnded) {
		<-l.gone // at once: the driver knows that it has ended
	}
	return l.isGone()
}

// trouble returns what the guest has suffered from its host, as far as the driver
// knows.
func (l *live) trouble() error {
	if m, ok := l.machine.(vmm.Troubled); ok {
		return m.Trouble()
	}
	return nil
}

// cause tells a person why the machine is gone.
func (l *live) cause() error {
	return exitFault(l.exit)
}

func exitFault(e vmm.Exit) error {
	switch e.Reason {
	case vmm.Panicked:
		return panicFault(or(e.Detail, "no reason given"))
	case vmm.Died:
		return fault.New(fault.Unavailable, "the VM's process ended: %s", or(e.Detail, "no reason given")).By(fault.Driver).
			WithHint("run it again; if it happens again, look at: aegis doctor")
	case vmm.PoweredOff:
		return fault.Wrap(fault.Unavailable, endedError("the VM turned itself off before the command had ended"), "").
			By(fault.Program).WithHint("the command, or something that it started, powered the VM off")
	case vmm.Killed:
	}
	return fault.Wrap(fault.Conflict, endedError("the VM was stopped"), "")
}

// endedError is an ErrEnded in words for people.
type endedError string

// Error implements error.
func (e endedError) Error() string { return string(e) }

// Is makes it an ErrEnded.
func (e endedError) Is(target error) bool { return target == ErrEnded }

// panicFault explains the end of a guest's kernel by its own last words.
func panicFault(words string) error {
	f := fault.New(fault.Unavailable, "the VM's kernel stopped: %s", words).By(fault.Guest).
		WithHint("what its console said last is in data/aegisd.log in AEGIS_HOME")
	switch {
	case strings.Contains(words, "Attempted to kill init"):
		f.Msg = "AegisVM's own process in the VM ended: " + words
	case strings.Contains(words, "Unable to mount root fs"), strings.Contains(words, "No working init found"):
		f.Msg = "the VM's kernel found no program to start: " + words
		_ = f.By(fault.Host).WithHint("remove kernel/initrd-* in AEGIS_HOME and run it again; if that does not help, install AegisVM again")
	case strings.Contains(strings.ToLower(words), "memory"):
		f.Hint = "give it more memory: --memory"
	}
	return f
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// boot is the operation of Booting: from nothing to the program running.
func (a *actor) boot(ctx context.Context) result {
	ctx, cancel := context.WithTimeoutCause(ctx, a.world.Limits.Boot,
		fault.New(fault.Timeout, "the VM was not ready within %v", a.world.Limits.Boot).By(fault.Guest).
			WithHint("the host may be overloaded; see: aegis doctor"))
	defer cancel()
	if err := a.world.admit(a.spec.Memory); err != nil {
		return result{err: err}
	}
	// Not the record's: those may change meanwhile.
	env, err := a.world.environment(ctx, a.given, a.spec.Command, a.spec.Env)
	if err != nil {
		return result{err: err}
	}
	recipe, err := a.world.Ground.Prepare(ctx, a.id, a.spec, a.record.Magic)
	if err != nil {
		return result{err: err}
	}
	m, err := a.world.Driver.Start(ctx, recipe, vmm.Boot{})
	if err != nil {
		return result{err: a.startFault(ctx, err)}
	}
	l := a.follow(ctx, m)
	if a.output != nil {
		a.output.Restart()
	}
	err = a.enter(ctx, l, func(ctx context.Context) error {
		if err := a.link(ctx, l, a.hello()); err != nil {
			return err
		}
		if err := l.guest.Spawn(ctx, a.program(env)); err != nil {
			return err
		}
		return a.attach(ctx, l, 0)
	})
	if err != nil {
		return result{err: a.giveUp(ctx, l, err)}
	}
	return result{live: l}
}

// startFault explains a machine that the driver did not start.
func (a *actor) startFault(ctx context.Context, err error) error {
	if fault.KindOf(context.Cause(ctx)) == fault.Timeout { // the guest has not run yet
		err = fault.New(fault.Timeout, "the VM did not start within %v", a.world.Limits.Boot).By(fault.Driver).
			WithHint("the host may be overloaded; see: aegis doctor")
	}
	return fmt.Errorf("start %s: %w", a.id, err)
}

// follow watches a machine that has been started or found.
func (a *actor) follow(ctx context.Context, m vmm.Machine) *live {
	l := &live{machine: m, gone: make(chan struct{}), started: time.Now()}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	a.ops.Go(func() {
		defer close(l.gone)
		defer cancel()
		l.exit, _ = m.Wait(ctx) // the machine ends, or it is let go
		if l.exit.Reason == vmm.Panicked {
			a.quote(ctx, l)
		}
	})
	a.ops.Go(func() {
		select {
		case <-a.left:
			cancel()
		case <-l.gone:
		}
	})
	return l
}

// quote logs what a guest that has ended wrote to its console last.
func (a *actor) quote(ctx context.Context, l *live) {
	if l.exit.Console != "" {
		a.log.WarnContext(ctx, "the guest's last words", logattr.Console(l.exit.Console))
	}
}

// enter does what makes a machine an instance's own. It ends early when the machine
// does.
func (a *actor) enter(ctx context.Context, l *live, do func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := make(chan struct{})
	defer close(stop)
	a.ops.Go(func() {
		select {
		case <-l.gone:
			cancel(l.cause())
		case <-stop:
		}
	})
	return do(ctx)
}

// link makes the link to the guest. It ends with the machine; attachments do too.
func (a *actor) link(ctx context.Context, l *live, hello guestproto.Hello) error {
	var err error
	if l.guest, err = a.world.Linker.Link(ctx, l.machine, a.record.Magic, hello); err != nil {
		return err
	}
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
		a.ops.Go(func() { a.pump(context.WithoutCancel(ctx), l) })
	}
	return nil
}

// resume is the operation of Resuming. The guest's clock stood still: it is set
// before anybody is told that the instance is awake.
func (a *actor) resume(ctx context.Context, l *live) error {
	if err := l.machine.Resume(ctx); err != nil {
		return err
	}
	if err := a.wake(ctx, l); err != nil {
		// It is not awake to anybody: let it be what the state says it is.
		return errors.Join(err, l.machine.Pause(context.WithoutCancel(ctx)))
	}
	return nil
}

// wake brings a guest whose vCPUs run again up to date.
func (a *actor) wake(ctx context.Context, l *live) error {
	ctx, cancel := context.WithTimeoutCause(ctx, a.world.Limits.Thaw,
		fault.New(fault.Timeout, "the VM's guest did not answer within %v of its wake", a.world.Limits.Thaw).By(fault.Guest).
			WithHint("end it with: aegis instance stop %s", a.spec.Handle))
	defer cancel()
	if l.guest == nil {
		return a.join(ctx, l)
	}
	if err := l.guest.Thaw(ctx); err != nil {
		return err
	}
	l.reap(ctx)
	return nil
}

// adopt is the operation of Booting in a daemon that finds its instance's machine
// running, as an earlier daemon left it.
func (a *actor) adopt(m vmm.Machine) func(context.Context) result {
	return func(ctx context.Context) result {
		ctx, cancel := context.WithTimeout(ctx, a.world.Limits.Boot)
		defer cancel()
		l := a.follow(ctx, m)
		paused, err := m.Paused(ctx)
		if err == nil && !paused {
			err = a.enter(ctx, l, func(ctx context.Context) error { return a.join(ctx, l) })
		}
		if err != nil {
			return result{err: a.giveUp(ctx, l, fmt.Errorf("adopt %s: %w", a.id, err))}
		}
		return result{live: l, paused: paused}
	}
}

// join makes the link to a guest that an earlier daemon had a link to, and goes on
// with the program's output where that one stored it.
func (a *actor) join(ctx context.Context, l *live) error {
	offset := a.output.Offset()
	hello := a.hello()
	hello.Identity = nil // it has one
	hello.Owned = []guestproto.Owned{{Exec: guestproto.ProgramID, Offset: offset}}
	if err := a.link(ctx, l, hello); err != nil {
		return err
	}
	return a.attach(ctx, l, offset)
}

// giveUp ends a machine that did not come up and says why: what ended the machine
// itself tells more than what the link saw of it.
func (a *actor) giveUp(ctx context.Context, l *live, err error) error {
	switch cause := context.Cause(ctx); {
	case l.endedBy(err):
		err = l.cause()
	case cause != nil:
		err = cause
	}
	if killErr := a.kill(ctx, l); killErr != nil {
		a.log.ErrorContext(ctx, "kill after a failed boot", logattr.Err(killErr))
	} else if fault.KindOf(err) == fault.Timeout {
		a.quote(ctx, l)
	}
	return err
}

// kill ends a machine for sure, whether or not ctx has ended.
func (a *actor) kill(ctx context.Context, l *live) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.world.Limits.Kill)
	defer cancel()
	if err := l.machine.Kill(ctx); err != nil {
		return fmt.Errorf("kill %s: %w", a.id, err)
	}
	<-l.gone
	return nil
}

// stop is the operation of Stopping: in good order where the instance's disk
// outlives the machine, else at once.
func (a *actor) stop(ctx context.Context, l *live) error {
	if l.isGone() {
		return nil
	}
	if !a.spec.Ephemeral {
		a.powerOff(ctx, l)
	}
	return a.kill(ctx, l)
}

// erase is the operation of Erasing. The handle is free before the deletion is
// answered.
func (a *actor) erase(ctx context.Context) error {
	if err := a.world.Ground.Clear(a.id); err != nil {
		return fmt.Errorf("delete %s: %w", a.id, err)
	}
	if a.spec.Ephemeral {
		a.unlist()
		return nil
	}
	err := a.output.Close()
	if err == nil {
		err = a.world.Store.DeleteInstance(ctx, a.id)
	}
	if err == nil {
		a.unlist()
	}
	return err
}

func (a *actor) powerOff(ctx context.Context, l *live) {
	limits := a.world.Limits
	ctx, cancel := context.WithTimeout(ctx, limits.Grace+limits.PowerOff)
	defer cancel()
	err := l.machine.Resume(ctx)
	if err == nil && l.guest == nil { // it was adopted paused
		err = a.wake(ctx, l)
	}
	if err == nil {
		err = l.guest.PowerOff(ctx, limits.Grace)
	}
	if err == nil {
		_, err = l.machine.Wait(ctx)
	}
	if err != nil && !l.isGone() {
		a.log.WarnContext(ctx, "power off", logattr.Err(err))
	}
}

func (a *actor) hello() guestproto.Hello {
	h := guestproto.Hello{
		MinVersion: guestproto.MinVersion,
		Version:    guestproto.Version,
		Owned:      []guestproto.Owned{},
		Identity:   newIdentity(a.id, a.spec.Handle),
	}
	if a.spec.Ephemeral {
		h.LonelyOffMS = lonelyOff.Milliseconds()
	}
	return h
}

// lonelyOff is how long an ephemeral guest goes on without a daemon: nobody comes
// back to it. A link that only broke is made again within a second.
const lonelyOff = 15 * time.Second

func (a *actor) program(env []string) guestproto.Spawn {
	spawn := guestproto.Spawn{
		ID:      guestproto.ProgramID,
		Command: a.spec.Command,
		Env:     env,
		Workdir: a.spec.Workdir,
		User:    a.spec.User,
		TTY:     a.spec.TTY,
		Stdin:   a.spec.Stdin,
	}
	if !a.spec.Ephemeral {
		spawn.Ring = programRing
	}
	return spawn
}

// programRing is how much output the guest keeps on its disk while no daemon is
// there to store it. When that is full too, the program waits.
const programRing = 64 << 20

// envList returns an environment as KEY=VALUE in a stable order.
func envList(env map[string]string) []string {
	out := make([]string, 0, len(env))
	for _, k := range slices.Sorted(maps.Keys(env)) {
		out = append(out, k+"="+env[k])
	}
	return out
}

func newIdentity(id ID, handle string) *guestproto.Identity {
	machine, boot := guestproto.NewNonce(), guestproto.NewNonce()
	boot[6], boot[8] = boot[6]&0x0f|0x40, boot[8]&0x3f|0x80 // RFC 9562, version 4
	b := hex.EncodeToString(boot[:])
	return &guestproto.Identity{
		Instance:  string(id),
		Hostname:  strings.ReplaceAll(handle, "_", "-"),
		MachineID: hex.EncodeToString(machine[:]),
		BootID:    strings.Join([]string{b[:8], b[8:12], b[12:16], b[16:20], b[20:]}, "-"),
	}
}
