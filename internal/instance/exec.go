package instance

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// ExecSpec is a command to run in an instance that exists.
type ExecSpec struct {
	Command []string
	Env     map[string]string // added to the instance's own, secrets included
	Workdir string            // "" is the instance's
	User    string            // "" is the instance's
	Stdin   bool
	TTY     *frame.Winsize
}

// Exec is a command that runs in an instance, and the connection to it. It is an
// Attachment whose Close ends the command, with everything it started.
type Exec struct {
	set   *Set
	actor *actor
	live  *live
	id    guestproto.ExecID
	att   Attachment
	over  atomic.Bool // Recv has seen the end
	close func() error

	notices notices
}

// Exec runs a command in an instance, which it wakes and holds awake until the
// command has ended and Close is called.
func (s *Set) Exec(ctx context.Context, ref string, spec ExecSpec) (*Exec, error) {
	a, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	check := Spec{Command: spec.Command, Env: spec.Env}
	if err := check.Complete(Defaults{}); err != nil {
		return nil, err
	}
	// Before the instance wakes: it may be for nothing.
	env, err := s.world.environment(ctx, a.view.Load().Spec.Secrets, spec.Command, a.spec.Env, spec.Env)
	if err != nil {
		return nil, err
	}
	id := newExecID()
	h, l, err := a.hold(ctx, Acquire, "exec "+string(id))
	if err != nil {
		return nil, s.wakeError(a, err)
	}
	x := &Exec{set: s, actor: a, live: l, id: id}
	if err := l.guest.Spawn(ctx, a.execRequest(id, spec, env)); err != nil {
		a.release(h)
		return nil, x.explain(err)
	}
	if x.att, err = l.guest.Attach(ctx, id, 0); err != nil {
		x.kill(ctx)
		a.release(h)
		return nil, x.explain(err)
	}
	x.close = sync.OnceValue(func() error {
		if !x.over.Load() {
			x.kill(ctx)
		}
		err := x.att.Close()
		a.release(h)
		return err
	})
	return x, nil
}

func newExecID() guestproto.ExecID {
	var r [8]byte
	_, _ = rand.Read(r[:]) // never fails, see crypto/rand
	return guestproto.ExecID("exec-" + hex.EncodeToString(r[:]))
}

func (a *actor) execRequest(id guestproto.ExecID, spec ExecSpec, env []string) guestproto.Spawn {
	return guestproto.Spawn{
		ID:      id,
		Command: spec.Command,
		Env:     a.environ(env),
		Workdir: or(spec.Workdir, a.spec.Workdir),
		User:    or(spec.User, a.spec.User),
		TTY:     spec.TTY,
		Stdin:   spec.Stdin,
	}
}

// ID returns the exec's id.
func (x *Exec) ID() guestproto.ExecID { return x.id }

// Recv implements Attachment. What the command writes is stored in the instance's
// log as well. When its machine has suffered from the host, a Notice before the Exit
// says so.
func (x *Exec) Recv() (frame.Frame, error) {
	f, err := x.notices.recv(x.att, func() error { return x.actor.trouble(x.live) })
	switch {
	case errors.Is(err, io.EOF):
		return f, err
	case err != nil:
		return f, x.explain(err)
	case f.Type == frame.Exit:
		x.over.Store(true)
	case f.Type == frame.Notice: // for the one who asked, not output
	case x.actor.output != nil:
		_ = x.actor.output.Exec(x.id, f.Type, f.Payload) // fails when the instance or the daemon ends
	}
	return f, nil
}

// Offset implements Attachment.
func (x *Exec) Offset() uint64 { return x.att.Offset() }

// Send implements Attachment.
func (x *Exec) Send(f frame.Frame) error { return x.att.Send(f) }

// Close ends the command if it still runs, and lets the instance sleep.
func (x *Exec) Close() error { return x.close() }

func (x *Exec) explain(err error) error {
	if x.live.endedBy(err) {
		return x.set.explain(x.live.cause())
	}
	return err
}

// killPatience bounds the wait for a guest that is to kill a command. One that is
// paused does not answer; it kills the command when it wakes, because the host no
// longer owns it.
const killPatience = 5 * time.Second

func (x *Exec) kill(ctx context.Context) {
	const sigkill = 9 // Linux, whatever this host is
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), killPatience,
		fault.New(fault.Timeout, "the guest does not answer"))
	defer cancel()
	if err := x.live.guest.Kill(ctx, x.id, sigkill); err != nil && !x.live.isGone() {
		x.live.disown(x.id)
	}
}
