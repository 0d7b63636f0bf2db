package instance

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/logattr"
)

var errNoWorkspace = fault.New(fault.Unavailable, "this daemon has no workspaces")

// share is the instance's folders, served to one machine.
type share struct {
	workspace Workspace
	done      chan struct{} // closed when it has been closed
}

// share serves the instance's folders on the network of the run's machine, for as long
// as that runs with this daemon. The guest need not run yet.
func (a *actor) share(ctx context.Context, l *live, life Life) error {
	n, err := l.network()
	if a.world.Workspaces == nil || err != nil { // without a network there is nowhere to serve
		return nil //nolint:nilerr // as it says
	}
	if err := a.unshared(ctx); err != nil {
		return err
	}
	ws, err := a.world.Workspaces.Open(a.id, a.spec.Folders, life)
	if err != nil {
		return a.notShared(err)
	}
	ln, err := n.Listen(guestproto.MountPort)
	if err != nil {
		_ = ws.Close() // nobody was served
		return fmt.Errorf("workspace of %s: %w", a.spec.Handle, err)
	}
	b := l.current()
	s := &share{workspace: ws, done: make(chan struct{})}
	a.shared = s
	l.furnish(b, s)
	a.ops.Go(func() {
		if err := ws.Serve(ln); err != nil && !b.isOver() {
			a.log.ErrorContext(ctx, "the workspace is not served any more", logattr.Err(err))
		}
	})
	a.ops.Go(func() {
		defer close(s.done)
		a.outlast(l, b)
		if err := ws.Close(); err != nil {
			a.log.ErrorContext(ctx, "close the workspace", logattr.Err(err))
		}
	})
	a.tellSharers(ctx)
	return nil
}

// notShared says of an instance that its folders cannot be had. That they are not there
// does not mean that it is not.
func (a *actor) notShared(err error) error {
	if fault.KindOf(err) != fault.NotFound {
		return fmt.Errorf("workspace of %s: %w", a.spec.Handle, err)
	}
	return fault.Wrap(fault.Unavailable, err, "workspace of %s", a.spec.Handle).By(fault.Host).WithHint("%s", fault.HintOf(err))
}

// unshared waits until what served the instance's folders to an earlier machine has
// been closed: there is one at a time. Only operations call it.
func (a *actor) unshared(ctx context.Context) error {
	if a.shared == nil {
		return nil
	}
	select {
	case <-a.shared.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// mount has the guest mount the folders that are served to it.
func (a *actor) mount(ctx context.Context, l *live) error {
	s := l.furniture()
	if s == nil {
		return nil
	}
	if err := l.guest.Mount(ctx, s.workspace.Mount()); err != nil {
		return fmt.Errorf("workspace of %s: %w", a.spec.Handle, err)
	}
	return nil
}

// remount is mount for a guest that has its folders and goes on: that it cannot be told
// of a new server is no reason to end it.
func (a *actor) remount(ctx context.Context, l *live) {
	if err := a.mount(ctx, l); err != nil && !l.endedBy(err) {
		a.log.WarnContext(ctx, "mount again", logattr.Err(err))
		a.remark("%v", err)
	}
}

// shareAgain is share for a machine that an earlier daemon left. It would be a pity for
// what is in its memory to end it where the folder is not there any more.
func (a *actor) shareAgain(ctx context.Context, l *live) {
	if err := a.share(ctx, l, GoesOn); err != nil {
		a.log.ErrorContext(ctx, "the workspace is not served", logattr.Err(err))
		a.remark("%v; what uses it waits", err)
	}
}

// furnish gives a machine of the run its folders.
func (l *live) furnish(b *body, s *share) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b.share = s
}

// furniture returns the folders that are served to the run's machine, or nil.
func (l *live) furniture() *share {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.body == nil {
		return nil
	}
	return l.body.share
}

// unfurnished waits until the folders of a machine that has ended, or was let go, are
// not served any more: answers under way go over its network.
func (l *live) unfurnished(b *body) {
	l.mu.Lock()
	s := b.share
	l.mu.Unlock()
	if s != nil {
		<-s.done
	}
}

func (b *body) isOver() bool {
	select {
	case <-b.over:
		return true
	default:
		return false
	}
}

// flush has a guest that is about to be ended write back what it has not written yet of
// the folders that outlive it.
func (a *actor) flush(ctx context.Context, l *live) {
	if l.furniture() == nil || !a.spec.Folders.Shared() {
		return
	}
	if paused, err := l.current().machine.Paused(ctx); err == nil && !paused {
		a.freeze(ctx, l)
	}
}

// tellSharers says which other instances work in the same folders: no lock reaches from
// one VM to another.
func (a *actor) tellSharers(ctx context.Context) {
	for _, other := range a.set.all() {
		v := other.view.Load()
		if v.ID == a.id || v.State == Stopped {
			continue
		}
		if source := a.spec.Folders.overlap(v.Spec.Folders); source != "" {
			a.log.InfoContext(ctx, "a workspace is shared", logattr.Why(source+" with "+v.Spec.Handle))
			a.remark("%s is in use by %s too: each sees what the other writes after a second, and no lock reaches from one VM to the other", source, v.Spec.Handle)
		}
	}
}

// overlap returns a folder of f that is, or contains, or is within one of g, where at
// least one of the two may write; or "".
func (f Folders) overlap(g Folders) string {
	for _, m := range f.all() {
		if slices.ContainsFunc(g.all(), func(n Mount) bool {
			return (!m.ReadOnly || !n.ReadOnly) && (within(m.Source, n.Source) || within(n.Source, m.Source))
		}) {
			return m.Source
		}
	}
	return ""
}

// all returns the folders that others may have too.
func (f Folders) all() []Mount {
	all := slices.Clone(f.Mounts)
	if f.Workspace != "" {
		all = append(all, Mount{Source: f.Workspace, ReadOnly: f.ReadOnly})
	}
	return all
}

// within reports whether one source is another or, as a path, below it.
func within(source, other string) bool {
	source, other = path.Clean(source), path.Clean(other)
	return source == other || path.IsAbs(other) && strings.HasPrefix(source, strings.TrimSuffix(other, "/")+"/")
}
