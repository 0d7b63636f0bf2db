package instance

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/size"
)

// Snapshot keeps an instance as it is now, under a name that no other snapshot has; "" is
// the snapshot's id. The instance stands still for a moment. Of one that is stopped and
// not hibernated only the disk is kept.
func (s *Set) Snapshot(ctx context.Context, ref, name string) (Snapshot, error) {
	a, err := s.forkable(ref)
	if err != nil {
		return Snapshot{}, err
	}
	c, err := a.beCaptured(ctx, "")
	if err != nil {
		return Snapshot{}, s.refuse(a, err)
	}
	defer c.Release()
	if err := c.Ready(ctx); err != nil {
		return Snapshot{}, fmt.Errorf("snapshot of %s: %w", a.spec.Handle, err)
	}
	return c.Keep(ctx, name, c.origin)
}

// Snapshots lists all snapshots, oldest first.
func (s *Set) Snapshots(ctx context.Context) ([]Snapshot, error) {
	if s.world.Archive == nil {
		return nil, nil
	}
	return s.world.Archive.Snapshots(ctx)
}

// DeleteSnapshot removes a snapshot, by its id or name. Instances that were started from it
// go on.
func (s *Set) DeleteSnapshot(ctx context.Context, ref string) error {
	if s.world.Archive == nil {
		return errNoSnapshot(ref)
	}
	return s.world.Archive.DeleteSnapshot(ctx, ref)
}

func errNoSnapshot(ref string) error {
	return fault.New(fault.NotFound, "there is no snapshot %q", ref).WithHint("see: aegis snapshot list")
}

// FromSnapshot says what an instance that starts from a snapshot is to be. What is zero is
// as it was; a shape that differs from the snapshot's is refused.
type FromSnapshot struct {
	Handle                string
	Memory                size.Bytes
	VCPUs                 int
	Disk                  size.Bytes
	Expose                []Expose // beside the snapshot's own, which are open on other numbers
	Secrets               []string // of later execs
	Egress                *Egress
	PauseAfter, StopAfter *time.Duration
}

// CreateFrom makes an instance that goes on where a snapshot was taken. If wait is set
// it returns when its program runs, like Launch, else at once, like Create.
func (s *Set) CreateFrom(ctx context.Context, ref string, f FromSnapshot, wait bool) (View, error) {
	c, err := s.openSnapshot(ctx, ref)
	if err != nil {
		return View{}, err
	}
	a, err := s.createFrom(ctx, c, f)
	if err != nil {
		c.Release()
		return View{}, err
	}
	a.bornBooting(func(ctx context.Context) result {
		defer c.Release()
		return a.bootFrom(ctx, &starting{actor: a, from: c})
	})
	if !wait {
		s.begin(a)
		return *a.view.Load(), nil
	}
	h := a.firstHold("start")
	s.begin(a)
	if _, err = a.granting(ctx, h); err == nil {
		a.release(h)
	}
	return *a.view.Load(), s.refuse(a, err)
}

// createFrom makes an instance with its disk, and remembers it.
func (s *Set) createFrom(ctx context.Context, c *captured, f FromSnapshot) (*actor, error) {
	of := c.origin
	if err := f.fits(of.Spec, c.name); err != nil {
		return nil, err
	}
	if f.Egress != nil {
		if err := s.world.checkEgress(*f.Egress); err != nil {
			return nil, err
		}
		of.Spec.Egress = *f.Egress
	}
	if f.PauseAfter != nil {
		of.Spec.PauseAfter = *f.PauseAfter
	}
	if f.StopAfter != nil {
		of.Spec.StopAfter = *f.StopAfter
	}
	a, err := s.copyOf(ctx, of, f.Handle, ForkSpec{Expose: f.Expose, Secrets: f.Secrets})
	if err != nil {
		return nil, err
	}
	a.given, a.pending = of.Given, false
	if err = s.inheritWorkspace(ctx, of.ID, a); err == nil {
		err = c.Lay(ctx, a.id)
	}
	if err == nil {
		err = s.world.Store.SaveInstance(ctx, a.record)
	}
	if err != nil {
		return nil, errors.Join(err, s.abandon(ctx, []*actor{a}, false))
	}
	return a, nil
}

// inheritWorkspace gives an instance that goes on with another's memory a copy of the
// workspace that went with that one, if it is still there: as it is now.
func (s *Set) inheritWorkspace(ctx context.Context, from ID, a *actor) error {
	if s.world.Workspaces == nil {
		return nil
	}
	if _, err := s.find(string(from)); err == nil && a.spec.Folders.Own() {
		return s.world.Workspaces.Copy(ctx, from, a.id)
	}
	return s.world.ensureFolders(a.id, a.spec.Folders)
}

// fits refuses a shape that memory cannot take on.
func (f *FromSnapshot) fits(of Spec, name string) error {
	for _, x := range []struct {
		option, has, want string
		differs           bool
	}{
		{"--memory", of.Memory.String(), f.Memory.String(), f.Memory != 0 && f.Memory != of.Memory},
		{"--cpus", strconv.Itoa(of.VCPUs), strconv.Itoa(f.VCPUs), f.VCPUs != 0 && f.VCPUs != of.VCPUs},
		{"--disk", of.Disk.String(), f.Disk.String(), f.Disk != 0 && f.Disk != of.Disk},
	} {
		if x.differs {
			return fault.New(fault.Invalid, "the snapshot %s was taken with %s %s, and cannot start with %s", name, x.option, x.has, x.want).
				WithHint("leave out %s: a VM keeps the shape that it was saved with", x.option)
		}
	}
	return nil
}

func (s *Set) openSnapshot(ctx context.Context, ref string) (*captured, error) {
	if s.world.Archive == nil {
		return nil, errNoSnapshot(ref)
	}
	snap, c, err := s.world.Archive.OpenSnapshot(ctx, ref)
	if err != nil {
		return nil, err
	}
	return &captured{Capture: c, origin: snap.Origin, name: snap.Name, kept: true}, nil
}

// Restore takes an instance back to a snapshot of itself, and returns when its program goes
// on. What it is now is lost; its name, ports and settings stay.
func (s *Set) Restore(ctx context.Context, ref, snapshot string) error {
	a, err := s.forkable(ref)
	if err != nil {
		return err
	}
	c, err := s.openSnapshot(ctx, snapshot)
	if err != nil {
		return err
	}
	defer c.Release()
	if c.origin.ID != a.id {
		return fault.New(fault.Conflict, "the snapshot %s is not of %s", c.name, a.spec.Handle).
			WithHint("start another instance from it: aegis instance start --snapshot %s", c.name)
	}
	// Not with the caller's context: what it goes back to is in use until that is answered.
	return s.refuse(a, a.demand(context.WithoutCancel(ctx), request{ev: Event{Kind: Revert}, revert: c}))
}
