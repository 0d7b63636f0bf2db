package instance

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"sync"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/frame"
)

// Run is one ephemeral instance and the connection to its program. It is an
// Attachment whose Close ends and deletes the instance.
type Run struct {
	set   *Set
	actor *actor
	live  *live
	last  []byte // payload of the Exit frame, while a Notice goes before it
	close func() error
}

// Run makes an ephemeral instance and returns when its program runs. When ctx
// ends before that, or anything fails, nothing of the instance is left.
func (s *Set) Run(ctx context.Context, spec Spec) (*Run, error) {
	spec.Ephemeral = true
	if err := spec.Complete(s.world.Defaults); err != nil {
		return nil, err
	}
	if err := s.world.checkSecrets(ctx, spec); err != nil {
		return nil, err
	}
	a, err := s.add(newRecord(spec))
	if err != nil {
		return nil, err
	}
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
	if r.last != nil {
		f := frame.Frame{Type: frame.Exit, Payload: r.last}
		r.last = nil
		return f, nil
	}
	f, err := r.live.program.Recv()
	if trouble := r.live.trouble(); err == nil && f.Type == frame.Exit && trouble != nil {
		r.last = slices.Clone(f.Payload)
		return noticeOf(trouble), nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return f, err
	}
	if r.live.endedBy(err) {
		return f, r.set.explain(r.live.cause())
	}
	return f, fault.Wrap(fault.Unavailable, err, "lost the connection to the VM").By(fault.Guest)
}

// noticeOf puts an error beside the output.
func noticeOf(err error) frame.Frame {
	body, _ := json.Marshal(api.ErrorOf(err)) // of strings; cannot fail
	return frame.Frame{Type: frame.Notice, Payload: body}
}

// Offset implements Attachment.
func (r *Run) Offset() uint64 { return r.live.program.Offset() }

// Send implements Attachment.
func (r *Run) Send(f frame.Frame) error { return r.live.program.Send(f) }

// Close ends and deletes the instance and returns when nothing of it is left.
// Calling it again does nothing more.
func (r *Run) Close() error { return r.close() }
