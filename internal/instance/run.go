package instance

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/frame"
)

// Run is one ephemeral instance and the connection to its program. It is an
// Attachment whose Close ends and deletes the instance.
type Run struct {
	set   *Set
	actor *actor
	live  *live
	close func() error

	notices notices
}

// Run makes an ephemeral instance and returns when its program runs. When ctx
// ends before that, or anything fails, nothing of the instance is left.
func (s *Set) Run(ctx context.Context, spec Spec) (*Run, error) {
	spec.Ephemeral, spec.Folders.Volatile = true, true
	if err := s.world.applyKit(&spec); err != nil {
		return nil, err
	}
	if err := spec.Complete(s.world.Defaults); err != nil {
		return nil, err
	}
	if err := s.world.checkEgress(spec.Egress); err != nil {
		return nil, err
	}
	if err := s.world.checkFolders(spec.Folders); err != nil {
		return nil, err
	}
	if err := s.world.checkSecrets(ctx, spec); err != nil {
		return nil, err
	}
	release, err := s.world.settle(ctx, &spec)
	if err != nil {
		return nil, err
	}
	a, err := s.add(newRecord(spec))
	release()
	if err != nil {
		return nil, err
	}
	err = a.openDoors()
	if err == nil {
		err = s.world.furnishKit(a.id, a.spec)
	}
	if err != nil {
		s.discard(a)
		return nil, errors.Join(err, s.world.clear(a.id))
	}
	a.refresh()
	s.begin(a)
	_, l, err := a.hold(ctx, Start, "run")
	if err != nil {
		err = s.explain(err)
		return nil, errors.Join(err, a.delete(ctx))
	}
	remove := func() error { return a.delete(ctx) }
	return &Run{set: s, actor: a, live: l, close: sync.OnceValue(remove)}, nil
}

// delete deletes the instance and waits until nothing of it is left, whether or
// not ctx has ended. The operations behind it have limits of their own.
func (a *actor) delete(ctx context.Context) error {
	err := a.ask(context.WithoutCancel(ctx), Delete)
	if errors.Is(err, ErrDeleted) {
		return nil
	}
	return err
}

// ID returns the instance's id.
func (r *Run) ID() ID { return r.actor.id }

// Recv implements Attachment. When the VM ends under the program the error says
// why; when the program has suffered from its host, a Notice before the Exit does.
func (r *Run) Recv() (frame.Frame, error) {
	f, err := r.notices.recv(r.live.program, r.live.trouble)
	if err == nil || errors.Is(err, io.EOF) {
		return f, err
	}
	if r.live.endedBy(err) {
		return f, r.set.explain(r.live.cause())
	}
	return f, fault.Wrap(fault.Unavailable, err, "lost the connection to the VM").By(fault.Guest)
}

// Offset implements Attachment.
func (r *Run) Offset() uint64 { return r.live.program.Offset() }

// Send implements Attachment.
func (r *Run) Send(f frame.Frame) error { return r.live.program.Send(f) }

// Close ends and deletes the instance and returns when nothing of it is left.
// Calling it again does nothing more.
func (r *Run) Close() error { return r.close() }
