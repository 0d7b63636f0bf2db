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
	defer release()
	// Or another request of that name would take it for one that is stopped.
	a, err := s.addIn(newRecord(spec), Booting)
	if err != nil {
		return nil, err
	}
	if a.output, err = a.openLog(); err == nil {
		err = a.openDoors()
	}
	if err == nil {
		err = s.world.ensureFolders(a.id, a.spec.Folders)
	}
	if err == nil {
		err = s.world.furnishKit(a.id, a.spec)
	}
	if err == nil {
		err = s.world.Store.SaveInstance(ctx, a.record)
	}
	if err != nil {
		s.discard(a)
		return nil, errors.Join(err, s.world.clear(a.id))
	}
	a.bornBooting(func(ctx context.Context) result { return a.boot(ctx, nil) }) // refreshes the view, ports included
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

// Hibernate saves an instance's memory and ends its machine; a trigger wakes it where
// it was.
func (s *Set) Hibernate(ctx context.Context, ref string) error {
	return s.demand(ctx, ref, Hibernate)
}

// Stop ends an instance's machine; a trigger starts it again.
func (s *Set) Stop(ctx context.Context, ref string) error { return s.demand(ctx, ref, Stop) }

// Disable ends an instance's machine; only an explicit start starts it again.
// So do its children, however deep.
func (s *Set) Disable(ctx context.Context, ref string) error {
	a, err := s.find(ref)
	if err != nil {
		return err
	}
	return s.refuse(a, s.disable(ctx, a))
}

// Restart ends an instance's machine and starts it again.
func (s *Set) Restart(ctx context.Context, ref string) error { return s.demand(ctx, ref, Restart) }

// Delete ends an instance and removes all of it, with all of its children, however deep.
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
		if s.families.liveOf(v.ID) > 0 {
			continue // they would go with it
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

// Leaving is what becomes of persistent instances when their daemon ends.
type Leaving uint8

// The ways to leave.
const (
	Keep      Leaving = iota // they go on without a daemon, for the next one
	PutAsleep                // their memory is saved where that can be, else they are stopped
	StopAll                  // they are stopped; those that sleep on disk stay as they are
)

// WakeError is why an instance could not be woken for somebody who needs it: it failed,
// and was not refused.
type WakeError struct{ err error }

// Error implements error.
func (e *WakeError) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *WakeError) Unwrap() error { return e.err }

// wakeError tells a wake that failed from one that was refused.
func (s *Set) wakeError(a *actor, err error) error {
	err = s.refuse(a, err)
	switch fault.KindOf(err) { //nolint:exhaustive // the others are failures
	case fault.Conflict, fault.NotFound, fault.Canceled:
		return err
	}
	return &WakeError{err}
}

// leave ends an actor with its daemon: see Set.Close.
func (a *actor) leave(ctx context.Context, how Leaving) error {
	if a.spec.Ephemeral {
		return a.ask(ctx, Delete)
	}
	if how != Keep && a.view.Load().State != Stopped {
		if err := a.rest(ctx, how); err != nil && !errors.Is(err, ErrSuperseded) {
			return err
		}
	}
	return a.send(ctx, request{letGo: true})
}

// rest brings an instance to a stop.
func (a *actor) rest(ctx context.Context, how Leaving) error {
	if how == PutAsleep && a.world.Driver.Info().Abilities.Save {
		err := a.ask(ctx, Hibernate)
		if err == nil || errors.Is(err, ErrNotRunning) { // it had not come up: there is nothing to save
			return nil
		}
		if ctx.Err() != nil || errors.Is(err, ErrDeleted) {
			return err
		}
		a.remark("the memory could not be saved, the program is stopped: %v", err)
	}
	return a.ask(ctx, Stop)
}
