package instance

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/logattr"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// Set holds all instances of a daemon. Its methods may be called together.
type Set struct {
	world World

	mu      sync.Mutex // protects what follows; never held over I/O
	actors  map[ID]*actor
	handles map[string]ID
	closing bool
	wg      sync.WaitGroup
}

// NewSet returns an empty Set. It does no I/O.
func NewSet(w World) *Set {
	return &Set{world: w, actors: map[ID]*actor{}, handles: map[string]ID{}}
}

// Recover clears away what an earlier daemon left behind. It is called once,
// before anything else.
func (s *Set) Recover(ctx context.Context) error {
	ids, err := s.world.Ground.Leftovers()
	if err != nil {
		return fmt.Errorf("list instances: %w", err)
	}
	var errs []error
	for _, id := range ids {
		s.world.Log.InfoContext(ctx, "clear away", logattr.Instance(id))
		errs = append(errs, s.clearAway(ctx, id))
	}
	return errors.Join(errs...)
}

// clearAway ends the machine of an instance that nobody owns, if it still runs, and
// removes its files.
func (s *Set) clearAway(ctx context.Context, id ID) error {
	ctx, cancel := context.WithTimeout(ctx, s.world.Limits.Kill)
	defer cancel()
	m, err := s.world.Driver.Adopt(ctx, s.world.Ground.Dir(id))
	if err == nil {
		err = m.Kill(ctx)
	}
	if err != nil && !errors.Is(err, vmm.ErrEnded) {
		return fmt.Errorf("end what is left of %s: %w", id, err)
	}
	return s.world.Ground.Clear(id)
}

// Len returns how many instances there are.
func (s *Set) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.actors)
}

// Close deletes ephemeral instances, all at once, and waits for their end. Calls in
// progress end with an error; new ones are refused.
func (s *Set) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closing = true
	all := make([]*actor, 0, len(s.actors))
	for _, a := range s.actors {
		all = append(all, a)
	}
	s.mu.Unlock()
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, a := range all {
		wg.Go(func() { errs[i] = a.ask(ctx, Delete) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("end instances: %w", err)
	}
	s.wg.Wait()
	return nil
}

var errClosing = fault.New(fault.Unavailable, "aegisd is shutting down").WithHint("start it again: aegis up")

// add makes an instance and starts its actor. The handle is unique from here on.
func (s *Set) add(spec Spec) (*actor, error) {
	id := NewID()
	if spec.Handle == "" {
		spec.Handle = string(id)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return nil, errClosing
	}
	if owner, ok := s.handles[spec.Handle]; ok {
		return nil, fault.New(fault.Conflict, "the name %q is taken by %s", spec.Handle, owner).
			WithHint("choose another --name, or none")
	}
	a := newActor(id, spec, &s.world)
	s.actors[id] = a
	s.handles[spec.Handle] = id
	a.unlist = func() { s.remove(a) }
	s.wg.Go(a.run)
	return a, nil
}

func (s *Set) remove(a *actor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.actors, a.id)
	delete(s.handles, a.spec.Handle)
}

func (s *Set) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}
