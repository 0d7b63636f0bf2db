package instance

import (
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

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

	gone chan struct{} // closed when the machine has ended; exit is set then
	exit vmm.Exit
}

func (l *live) isGone() bool {
	select {
	case <-l.gone:
		return true
	default:
		return false
	}
}

// cause tells a person why the machine is gone.
func (l *live) cause() error {
	return exitFault(l.exit)
}

func exitFault(e vmm.Exit) error {
	switch e.Reason {
	case vmm.Panicked:
		return fault.New(fault.Unavailable, "the VM's kernel stopped: %s", or(e.Detail, "no reason given")).By(fault.Guest).
			WithHint("the last lines of its console are in the daemon's log; more memory (--memory) often helps")
	case vmm.Died:
		return fault.New(fault.Unavailable, "the VM's process ended: %s", or(e.Detail, "no reason given")).By(fault.Driver).
			WithHint("run it again; if it happens again, look at: aegis doctor")
	case vmm.PoweredOff:
		return fault.Wrap(fault.Unavailable, ErrEnded, "the VM turned itself off").By(fault.Program)
	case vmm.Killed:
	}
	return fault.Wrap(fault.Conflict, ErrEnded, "the VM was stopped")
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// boot is the operation of Booting: from nothing to the program running.
func (a *actor) boot(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, a.world.Limits.Boot,
		fault.New(fault.Timeout, "the VM was not ready within %v", a.world.Limits.Boot).By(fault.Guest).
			WithHint("the host may be overloaded; see: aegis doctor"))
	defer cancel()
	recipe, magic, err := a.world.Ground.Prepare(ctx, a.id, a.spec)
	if err != nil {
		return err
	}
	m, err := a.world.Driver.Start(ctx, recipe, vmm.Boot{})
	if err != nil {
		return fmt.Errorf("start %s: %w", a.id, err)
	}
	l := &live{machine: m, gone: make(chan struct{})}
	a.ops.Go(func() { a.watch(context.WithoutCancel(ctx), l) })
	if err := a.enter(ctx, l, magic); err != nil {
		return a.giveUp(ctx, l, err)
	}
	a.booted <- l
	return nil
}

// watch waits for the end of a machine. It is the only reader of Wait.
func (a *actor) watch(ctx context.Context, l *live) {
	l.exit, _ = l.machine.Wait(ctx) // ctx never ends: the machine does, by itself or by Kill
	close(l.gone)
}

// enter makes the link and starts the program. It ends early when the machine
// does.
func (a *actor) enter(ctx context.Context, l *live, magic guestproto.Magic) error {
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
	var err error
	if l.guest, err = a.world.Linker.Link(ctx, l.machine, magic, a.hello()); err != nil {
		return err
	}
	a.ops.Go(func() { // a machine that is gone has no link; attachments end
		<-l.gone
		_ = l.guest.Close() // nothing to be done about it
	})
	if err := l.guest.Spawn(ctx, a.program()); err != nil {
		return err
	}
	l.program, err = l.guest.Attach(ctx, guestproto.ProgramID, 0)
	return err
}

// giveUp ends a machine that did not come up and says why: what ended the machine
// itself tells more than what the link saw of it.
func (a *actor) giveUp(ctx context.Context, l *live, err error) error {
	switch cause := context.Cause(ctx); {
	case l.isGone():
		err = l.cause()
	case cause != nil:
		err = cause
	}
	if killErr := a.kill(ctx, l); killErr != nil {
		a.log.ErrorContext(ctx, "kill after a failed boot", logattr.Err(killErr))
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
func (a *actor) erase(context.Context) error {
	if err := a.world.Ground.Clear(a.id); err != nil {
		return fmt.Errorf("delete %s: %w", a.id, err)
	}
	a.unlist()
	return nil
}

func (a *actor) powerOff(ctx context.Context, l *live) {
	limits := a.world.Limits
	ctx, cancel := context.WithTimeout(ctx, limits.Grace+limits.PowerOff)
	defer cancel()
	err := l.machine.Resume(ctx)
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
	rekey := guestproto.NewMagic()
	return guestproto.Hello{
		MinVersion: guestproto.MinVersion,
		Version:    guestproto.Version,
		Rekey:      &rekey,
		Owned:      []guestproto.Owned{},
		Identity:   newIdentity(a.id, a.spec.Handle),
	}
}

func (a *actor) program() guestproto.Spawn {
	env := make([]string, 0, len(a.spec.Env))
	for _, k := range slices.Sorted(maps.Keys(a.spec.Env)) {
		env = append(env, k+"="+a.spec.Env[k])
	}
	return guestproto.Spawn{
		ID:      guestproto.ProgramID,
		Command: a.spec.Command,
		Env:     env,
		Workdir: a.spec.Workdir,
		User:    a.spec.User,
		TTY:     a.spec.TTY,
		Stdin:   a.spec.Stdin,
	}
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
