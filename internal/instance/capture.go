package instance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/logattr"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// captured is an instance as it was, and what must be known to go on with it.
type captured struct {
	Capture

	origin Origin
	name   string
	kept   bool // it is a snapshot: where its memory is of no use, its disk may be
}

// taking is a request to capture an instance, on its way to the actor and back.
type taking struct {
	reply chan taken // buffered
	// workspaceOf is a new instance that gets a copy of the automatic workspace, if that is what
	// there is; or "".
	workspaceOf ID
}

type taken struct {
	*captured

	err error
}

// give answers with what came of the operation.
func (t *taking) give(r result) {
	if r.err != nil && r.taken != nil { // the machine ended just then
		r.taken.Release()
		r.taken = nil
	}
	t.reply <- taken{r.taken, r.err}
}

func (a *actor) refuseTakings(err error) {
	for _, t := range a.takings {
		t.reply <- taken{err: err}
	}
	a.takings = nil
}

// beCaptured takes the instance as it is, once it is settled. The caller releases what it
// gets. It does not end with ctx: what was begun is finished.
func (a *actor) beCaptured(ctx context.Context, workspaceOf ID) (*captured, error) {
	t := &taking{reply: make(chan taken, 1), workspaceOf: workspaceOf}
	if err := a.send(ctx, request{ev: Event{Kind: TakeState}, take: t}); err != nil {
		return nil, err
	}
	got := <-t.reply
	if got.err != nil {
		return nil, got.err
	}
	if ctx.Err() != nil {
		got.Release()
		return nil, context.Cause(ctx)
	}
	return got.captured, nil
}

// origin is what is known of the instance now.
func (a *actor) origin() Origin {
	spec := a.record.Spec
	return Origin{ID: a.id, Spec: spec, Given: a.given, Magic: a.magic}
}

// capture is the operation of Capturing. The instance is again what it was when it
// returns; where that failed its run has ended.
func (a *actor) capture(ctx context.Context, l *live, back State, of Origin, workspaceOf ID) result {
	ctx, cancel := context.WithTimeoutCause(ctx, a.world.Limits.Capture,
		fault.New(fault.Timeout, "the VM's state was not taken within %v", a.world.Limits.Capture).By(fault.Driver).
			WithHint("is the disk slow, or full?"))
	defer cancel()
	c, err := a.world.Archive.Capture(ctx, a.id, a.spec, l != nil)
	if err != nil {
		return result{err: err}
	}
	out := &captured{Capture: c, origin: of}
	if l == nil {
		out.origin.Offset = a.output.Offset()
		if err := a.copyWorkspace(ctx, workspaceOf); err != nil {
			c.Release()
			return result{err: err}
		}
		return result{taken: out}
	}
	begin := time.Now()
	if back == Running {
		err = a.pause(ctx, l)
	}
	if err == nil {
		// Nothing writes to it now: those who could are frozen, and have written what they had.
		err = errors.Join(a.copyWorkspace(ctx, workspaceOf), a.takeState(ctx, l, out, back))
	}
	if err != nil {
		c.Release()
		return result{err: err}
	}
	a.log.InfoContext(ctx, "captured", logattr.Took(time.Since(begin)))
	return result{taken: out}
}

// copyWorkspace gives a new instance a copy of the workspace that goes with this one.
func (a *actor) copyWorkspace(ctx context.Context, to ID) error {
	if to == "" || a.world.Workspaces == nil || !a.spec.Folders.Own() {
		return nil
	}
	return a.world.Workspaces.Copy(ctx, a.id, to)
}

// takeState captures a machine that is paused, and brings it back to what it was.
func (a *actor) takeState(ctx context.Context, l *live, out *captured, back State) error {
	moved, err := out.Take(ctx, l.current().machine)
	out.origin.Offset, out.origin.Listen = a.output.Offset(), l.wires.left(l.slept)
	// Whatever comes now is for the instance, not for those who asked.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.world.Limits.Boot)
	defer cancel()
	if moved {
		err = a.move(ctx, l, out.Onward())
	}
	if l.isGone() {
		return errors.Join(err, l.cause())
	}
	switch {
	case back == Running:
		err = errors.Join(err, a.resume(ctx, l))
	case !moved && err == nil:
		// A machine must have run before it is saved once more. Its programs are frozen.
		m := l.current().machine
		err = errors.Join(m.Resume(ctx), m.Pause(ctx))
	}
	if err != nil && back == Running && !l.isGone() {
		if paused, pauseErr := l.current().machine.Paused(ctx); pauseErr == nil && paused {
			// It is not what the state says it is, and nobody would wake it.
			err = errors.Join(err, a.kill(ctx, l))
		}
	}
	return err
}

// move puts the run into the machine that goes on with its memory, in the place of the one
// that it was taken from. It is paused, like that one. After an error the run has ended.
func (a *actor) move(ctx context.Context, l *live, plan Plan) error {
	b, heir := l.current(), &body{over: make(chan struct{})}
	if l.guest != nil {
		l.guest.Suspend()
	}
	l.moved = true
	l.bequeath(b, heir)
	err := a.killBody(ctx, b)
	if err == nil {
		var m vmm.Machine
		if m, err = a.world.Driver.Start(ctx, plan.Recipe, plan.Source); err == nil {
			a.followIn(ctx, l, m, heir)
			return a.replug(ctx, l)
		}
	}
	close(heir.over)
	err = fault.Wrap(fault.KindOf(err), err, "the VM was captured and could not go on").By(fault.Driver)
	l.end(err)
	return err
}

// bequeath makes heir the body that goes on where b is about to end.
func (l *live) bequeath(b, heir *body) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b.heir, heir.network, heir.share = heir, b.network, b.share
	l.body = heir
}

func (a *actor) killBody(ctx context.Context, b *body) error {
	ctx, cancel := context.WithTimeout(ctx, a.world.Limits.Kill)
	defer cancel()
	if err := b.machine.Kill(ctx); err != nil {
		return fmt.Errorf("kill %s: %w", a.id, err)
	}
	<-b.over
	return nil
}

// replug joins the run's network to the machine that it has now.
func (a *actor) replug(ctx context.Context, l *live) error {
	b := l.current()
	if b.network == nil {
		return nil
	}
	conn, err := b.machine.AttachNetwork(ctx)
	if err != nil {
		return fmt.Errorf("network of %s: %w", a.id, err)
	}
	b.network.Attach(conn)
	return nil
}

// goOn makes a machine that has the memory of what was captured the instance's own: its
// program goes on, everything else of the source is ended, and nothing is what others
// have, when the first of its processes runs again.
func (s *starting) goOn(ctx context.Context, l *live) error {
	hello, of := s.hello(), s.from.origin
	hello.Rekey, hello.Identity.Clone = &s.magic, true
	hello.Owned = []guestproto.Owned{{Exec: guestproto.ProgramID, Offset: of.Offset}}
	if err := s.share(ctx, l, Branches); err != nil {
		return err
	}
	if err := l.current().machine.Resume(ctx); err != nil {
		return err
	}
	if err := s.link(ctx, l, of.Magic, hello); err != nil {
		return err
	}
	s.linked = true // and its folders are mounted: what connected it to their server has ended with all else
	// A later daemon goes on behind what is stored, which is nothing yet.
	if err := s.output.Skip(of.Offset); err != nil {
		return err
	}
	l.started = time.Now()
	l.wires.expect(l.started.Add(of.Listen))
	if err := s.attach(ctx, l, of.Offset); err != nil {
		return err
	}
	return s.world.Ground.Started(s.id)
}

// goBack is the operation of Booting from a snapshot of the instance's past.
func (a *actor) goBack(ctx context.Context, asleep *live, from *captured) result {
	s := &starting{actor: a, asleep: asleep, from: from}
	s.forget(ctx)
	a.remark("it goes back to the snapshot %s", from.name)
	if err := from.Lay(ctx, a.id); err != nil {
		return result{err: err, spent: true}
	}
	return a.bootFrom(ctx, s)
}
