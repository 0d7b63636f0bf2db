package instance

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
)

// ForkSpec says what forks of an instance are to be.
type ForkSpec struct {
	Names   []string // one for each; "" is one made from the id
	Expose  []Expose // ports beside the source's own, which are open on other numbers
	Secrets []string // of later execs; what the memory holds it holds
	// Parent is the instance that asks over the Guest API, with the rights that the forks are to
	// have; "" is the user, whose forks have those of the source.
	Parent ID
	Rights api.Capabilities
}

// MaxForks bounds how many forks one request makes.
const MaxForks = 100

// atOnceForks is how many forks of one request start together: more would only wait for the
// host's CPUs, and each other.
func atOnceForks() int { return max(2, runtime.NumCPU()) }

// Fork makes copies of an instance as it is now, which go on where it is, and returns when
// their programs run. The instance itself stands still for a moment, once. Either all
// copies are made, or none. Copies of one that is stopped and not hibernated start anew.
func (s *Set) Fork(ctx context.Context, ref string, f ForkSpec) (forks []View, cold bool, err error) {
	source, err := s.forkable(ref)
	if err != nil {
		return nil, false, err
	}
	if len(f.Names) == 0 || len(f.Names) > MaxForks {
		return nil, false, fault.New(fault.Invalid, "%d forks cannot be made at a time", len(f.Names)).WithHint("make 1 to %d", MaxForks)
	}
	hatched := false
	all, err := s.reserve(ctx, source, f)
	defer func() {
		if err != nil {
			err = errors.Join(err, s.abandon(ctx, all, hatched))
		}
	}()
	if err != nil {
		return nil, false, err
	}
	c, err := source.beCaptured(ctx, all[0].id)
	if err != nil {
		return nil, false, s.refuse(source, err)
	}
	defer c.Release()
	if err = c.Ready(ctx); err == nil {
		err = s.shareOut(ctx, all)
	}
	if err != nil {
		return nil, false, fmt.Errorf("fork %s: %w", source.spec.Handle, err)
	}
	hatched = true
	if err := s.hatch(ctx, all, c); err != nil {
		return nil, false, fmt.Errorf("fork %s: %w", source.spec.Handle, err)
	}
	for _, k := range all {
		forks = append(forks, *k.view.Load())
	}
	return forks, c.Cold(), nil
}

// forkable returns an instance that can be captured.
func (s *Set) forkable(ref string) (*actor, error) {
	a, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	info := s.world.Driver.Info()
	switch {
	case s.world.Archive == nil || !info.Abilities.Save:
		return nil, fault.New(fault.Conflict, "this VMM cannot save the state of a VM").By(fault.Driver).WithHint("see: aegis doctor")
	case a.spec.Ephemeral:
		return nil, fault.New(fault.Conflict, "%s is of a run, which ends with its client", a.spec.Handle).
			WithHint("start what is to be forked with: aegis instance start")
	}
	return a, nil
}

// reserve makes the actors of forks: their names and ports are theirs from here on. They
// live from hatch on, and are remembered when all of them run. After an error it returns
// those that it made.
func (s *Set) reserve(ctx context.Context, source *actor, f ForkSpec) ([]*actor, error) {
	v := source.view.Load()
	var all []*actor
	for _, name := range f.Names {
		a, err := s.copyOf(ctx, Origin{ID: v.ID, Spec: v.Spec}, name, f)
		if err != nil {
			return all, err
		}
		all = append(all, a)
	}
	return all, nil
}

// copyOf makes the actor of an instance that will start from another's state.
func (s *Set) copyOf(ctx context.Context, of Origin, name string, f ForkSpec) (*actor, error) {
	spec := of.Spec
	spec.Handle, spec.Secrets = name, f.Secrets
	spec.Expose = slices.Clone(spec.Expose)
	if spec.Parent = f.Parent; f.Parent != "" {
		spec.Capabilities = &f.Rights
	}
	for i := range spec.Expose {
		spec.Expose[i].Public = 0
	}
	for _, e := range f.Expose {
		spec.Expose = slices.DeleteFunc(spec.Expose, func(old Expose) bool { return old.Guest == e.Guest })
		spec.Expose = append(spec.Expose, e)
	}
	if err := spec.Complete(s.world.Defaults); err != nil {
		return nil, err
	}
	if err := s.world.checkFolders(spec.Folders); err != nil {
		return nil, err
	}
	if err := s.world.checkSecrets(ctx, spec); err != nil {
		return nil, err
	}
	r := newRecord(spec)
	r.Copy = true
	a, err := s.addIn(r, Booting)
	if err != nil {
		return nil, err
	}
	a.pending = true
	if a.output, err = a.openLog(); err == nil {
		err = a.openDoors()
	}
	if err != nil {
		return nil, errors.Join(err, s.abandon(ctx, []*actor{a}, false))
	}
	a.refresh()
	return a, nil
}

// hatch starts forks from what was captured, and remembers them when all of them run.
func (s *Set) hatch(ctx context.Context, all []*actor, c *captured) error {
	turns := make(chan struct{}, atOnceForks())
	holds := make([]*hold, len(all))
	for i, a := range all {
		a.given = c.origin.Given
		a.bornBooting(func(ctx context.Context) result {
			turns <- struct{}{}
			defer func() { <-turns }()
			return a.startFrom(ctx, c)
		})
		holds[i] = a.firstHold("fork")
		s.begin(a)
	}
	var errs []error
	for i, a := range all {
		_, err := a.granting(ctx, holds[i])
		if err == nil {
			a.release(holds[i])
		}
		errs = append(errs, s.refuse(a, err))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, a := range all {
		if err := s.refuse(a, a.instruct(ctx, a.confirm)); err != nil { // the daemon may be ending
			return err
		}
	}
	return nil
}

// shareOut copies the workspace that was copied for the first of some forks for the others.
func (s *Set) shareOut(ctx context.Context, all []*actor) error {
	if s.world.Workspaces == nil || !all[0].spec.Folders.Own() {
		return nil
	}
	for _, a := range all[1:] {
		if err := s.world.Workspaces.Copy(ctx, all[0].id, a.id); err != nil {
			return err
		}
	}
	return nil
}

// startFrom is the operation of Booting of an instance that starts from another's state.
func (a *actor) startFrom(ctx context.Context, c *captured) result {
	if ctx.Err() != nil {
		return result{err: context.Cause(ctx)}
	}
	if err := c.Lay(ctx, a.id); err != nil {
		return result{err: err}
	}
	return a.bootFrom(ctx, &starting{actor: a, from: c})
}

// confirm has an instance remembered that was made on trial.
func (a *actor) confirm() error {
	defer a.attend()
	a.pending = false
	return a.save()
}

// abandon removes instances that came to nothing. live says that they have begun to live.
func (s *Set) abandon(ctx context.Context, all []*actor, live bool) error {
	var errs []error
	for _, a := range all {
		if live {
			errs = append(errs, a.delete(ctx))
			continue
		}
		s.discard(a)
		if a.output != nil {
			errs = append(errs, a.output.Close())
		}
		errs = append(errs, s.world.clear(a.id))
	}
	return errors.Join(errs...)
}
