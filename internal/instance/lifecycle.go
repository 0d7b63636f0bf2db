package instance

import (
	"context"
	"errors"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// Create makes a persistent instance and begins to start it; Start waits for that.
// The instance is remembered when Create returns.
func (s *Set) Create(ctx context.Context, spec Spec) (View, error) {
	a, err := s.create(ctx, spec)
	if err != nil {
		return View{}, err
	}
	s.begin(a)
	return *a.view.Load(), nil
}

// Launch makes a persistent instance and returns when its program runs. When the
// start fails, or ctx ends before it has, the instance stays, and the View tells which
// it is; else an error comes with an empty View. Unlike a Start after Create it never
// runs the program of an instance whose start has ended meanwhile a second time.
func (s *Set) Launch(ctx context.Context, spec Spec) (View, error) {
	a, err := s.create(ctx, spec)
	if err != nil {
		return View{}, err
	}
	h := a.firstHold("start")
	s.begin(a)
	if _, err = a.granting(ctx, h); err == nil {
		a.release(h)
	}
	return *a.view.Load(), s.refuse(a, err)
}

// create makes an instance that is about to boot. It lives from begin on.
func (s *Set) create(ctx context.Context, spec Spec) (*actor, error) {
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
	if a.output, err = s.world.Logs.Open(a.id); err == nil {
		err = s.world.Store.SaveInstance(ctx, a.record)
	}
	if err != nil {
		s.remove(a)
		return nil, errors.Join(err, s.world.Ground.Clear(a.id))
	}
	a.bornIn(Booting, a.boot)
	return a, nil
}

// Start enables an instance and returns when its program runs.
func (s *Set) Start(ctx context.Context, ref string) error { return s.wake(ctx, ref, Start) }

// Resume wakes an instance and returns when its program runs. A disabled one stays
// disabled.
func (s *Set) Resume(ctx context.Context, ref string) error { return s.wake(ctx, ref, Acquire) }

func (s *Set) wake(ctx context.Context, ref string, kind EventKind) error {
	a, err := s.find(ref)
	if err != nil {
		return err
	}
	h, _, err := a.hold(ctx, kind, "start")
	if err != nil {
		return s.refuse(a, err)
	}
	a.release(h)
	return nil
}

// Pause stops an instance's vCPUs.
func (s *Set) Pause(ctx context.Context, ref string) error { return s.demand(ctx, ref, Pause) }

// Stop ends an instance's machine; a trigger starts it again.
func (s *Set) Stop(ctx context.Context, ref string) error { return s.demand(ctx, ref, Stop) }

// Disable ends an instance's machine; only an explicit start starts it again.
func (s *Set) Disable(ctx context.Context, ref string) error { return s.demand(ctx, ref, Disable) }

// Restart ends an instance's machine and starts it again.
func (s *Set) Restart(ctx context.Context, ref string) error { return s.demand(ctx, ref, Restart) }

// Delete ends an instance and removes all of it.
func (s *Set) Delete(ctx context.Context, ref string) error { return s.demand(ctx, ref, Delete) }

func (s *Set) demand(ctx context.Context, ref string, kind EventKind) error {
	a, err := s.find(ref)
	if err != nil {
		return err
	}
	return s.refuse(a, a.ask(ctx, kind))
}

// Prune deletes the instances that have been stopped for longer than age, and
// returns which.
func (s *Set) Prune(ctx context.Context, age time.Duration) ([]ID, error) {
	var gone []ID
	var errs []error
	for _, v := range s.List() {
		if v.State != Stopped || v.Stopped.IsZero() || time.Since(v.Stopped) < age {
			continue
		}
		// One that was started since is not stopped any more; it is left alone.
		if now, err := s.Get(string(v.ID)); err != nil || now.State != Stopped {
			continue
		}
		if err := s.Delete(ctx, string(v.ID)); err != nil {
			errs = append(errs, err)
			continue
		}
		gone = append(gone, v.ID)
	}
	return gone, errors.Join(errs...)
}

// refuse puts the reasons of the core in words for people.
func (s *Set) refuse(a *actor, err error) error {
	if err == nil {
		return nil
	}
	err = s.explain(err)
	name := a.spec.Handle
	switch {
	case errors.Is(err, ErrDeleted):
		return fault.Wrap(fault.NotFound, err, "%s", name)
	case errors.Is(err, ErrDisabled):
		return fault.Wrap(fault.Conflict, err, "%s", name).WithHint("aegis instance start --name %s", name)
	case errors.Is(err, ErrBarred):
		return fault.Wrap(fault.Conflict, err, "%s", name).By(fault.Program).
			WithHint("see why (aegis logs %s), then: aegis instance start --name %s", name, name)
	case errors.Is(err, ErrSuperseded), errors.Is(err, ErrNotRunning):
		return fault.Wrap(fault.Conflict, err, "%s", name).WithHint("aegis instance info %s", name)
	}
	return err
}

// leave ends an actor with its daemon: see Set.Close.
func (a *actor) leave(ctx context.Context, keep bool) error {
	switch {
	case a.spec.Ephemeral:
		return a.ask(ctx, Delete)
	case !keep:
		if err := a.ask(ctx, Stop); err != nil && !errors.Is(err, ErrSuperseded) {
			return err
		}
	}
	return a.send(ctx, request{letGo: true})
}
