package instance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/logattr"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// Set holds all instances of a daemon. Its methods may be called together.
type Set struct {
	world    World
	families families

	mu       sync.Mutex // protects what follows; never held over I/O
	actors   map[ID]*actor
	handles  map[string]ID
	watchers map[chan Change]bool
	closing  bool
	wg       sync.WaitGroup
}

// NewSet returns an empty Set. It does no I/O.
func NewSet(w World) *Set {
	return &Set{world: w, actors: map[ID]*actor{}, handles: map[string]ID{}, watchers: map[chan Change]bool{}}
}

// Len returns how many instances there are.
func (s *Set) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.actors)
}

// Running returns how many instances have a machine, or are about to.
func (s *Set) Running() int {
	n := 0
	for _, a := range s.all() {
		if a.view.Load().State != Stopped {
			n++
		}
	}
	return n
}

// List returns all instances, oldest first.
func (s *Set) List() []View {
	all := s.all()
	out := make([]View, 0, len(all))
	for _, a := range all {
		out = append(out, *a.view.Load())
	}
	slices.SortFunc(out, func(a, b View) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return out
}

// Get returns the instance with that id or handle.
func (s *Set) Get(ref string) (View, error) {
	a, err := s.find(ref)
	if err != nil {
		return View{}, err
	}
	return *a.view.Load(), nil
}

func (s *Set) all() []*actor {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*actor, 0, len(s.actors))
	for _, a := range s.actors {
		out = append(out, a)
	}
	return out
}

func (s *Set) find(ref string) (*actor, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := ID(ref)
	if byHandle, ok := s.handles[ref]; ok {
		id = byHandle
	}
	if a, ok := s.actors[id]; ok {
		return a, nil
	}
	return nil, fault.New(fault.NotFound, "there is no instance %q", ref).WithHint("see: aegis instance list")
}

// add makes the actor of an instance. The handle is unique from here on.
func (s *Set) add(r Record) (*actor, error) { return s.addIn(r, Stopped) }

// addIn is add, for an instance that is to be seen in a state from the first moment on.
func (s *Set) addIn(r Record, state State) (*actor, error) {
	if r.Spec.Handle == "" {
		r.Spec.Handle = string(r.ID)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return nil, errClosing
	}
	if owner, ok := s.handles[r.Spec.Handle]; ok {
		return nil, fault.New(fault.Conflict, "the name %q is taken by %s", r.Spec.Handle, owner).
			WithHint("choose another --name, or none")
	}
	if other, ok := s.actors[ID(r.Spec.Handle)]; ok {
		// Or whoever means the one by its id would meet the other.
		return nil, fault.New(fault.Conflict, "the name %q is the id of %s", r.Spec.Handle, other.spec.Handle).
			WithHint("choose another --name, or none")
	}
	if err := s.admitChild(r, state); err != nil {
		return nil, err
	}
	a := newActor(r, s)
	a.snap.State = state
	a.refresh()
	s.actors[r.ID] = a
	s.handles[r.Spec.Handle] = r.ID
	return a, nil
}

// begin lets an actor that was added run.
func (s *Set) begin(a *actor) { s.wg.Go(a.run) }

// discard ends an actor that has not begun. Whoever has found it meanwhile is told.
func (s *Set) discard(a *actor) {
	a.closeDoors()
	s.remove(a)
	a.snap.State = Deleted
	s.begin(a)
}

func (s *Set) remove(a *actor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.actors, a.id)
	delete(s.handles, a.spec.Handle)
	s.families.leave(a.spec.Parent, a.id)
}

// whoHas returns the name of another instance that has a public port of which e needs
// to be the only one, and its guest's port; or "".
func (s *Set) whoHas(e Expose, but ID) (handle string, guest uint16) {
	for _, a := range s.all() {
		v := a.view.Load()
		if !v.Enabled || v.ID == but {
			continue
		}
		if i := slices.IndexFunc(v.Spec.Expose, e.clashes); i >= 0 {
			return v.Spec.Handle, v.Spec.Expose[i].Guest
		}
	}
	return "", 0
}

func newRecord(spec Spec) Record {
	now := time.Now()
	return Record{ID: NewID(), Spec: spec, Enabled: true, Created: now, Updated: now, Magic: guestproto.NewMagic()}
}

// Watch returns a channel of all changes of state from now on. A watcher that does
// not keep up is let go: its channel is closed. So is every channel when the Set
// has closed. stop ends the watch; it may be called again.
func (s *Set) Watch() (changes <-chan Change, stop func()) {
	c := make(chan Change, 256)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		close(c)
		return c, func() {}
	}
	s.watchers[c] = true
	return c, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.unwatch(c)
	}
}

func (s *Set) publish(c Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.watchers {
		select {
		case w <- c:
		default:
			s.unwatch(w)
		}
	}
}

// unwatch lets a watcher go. The caller holds mu.
func (s *Set) unwatch(c chan Change) {
	if s.watchers[c] {
		delete(s.watchers, c)
		close(c)
	}
}

// Close ends the Set. Ephemeral instances are deleted; what becomes of the others, how
// says. It returns when all actors have ended. Calls in progress end with an error; new
// ones are refused.
func (s *Set) Close(ctx context.Context, how Leaving) error {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	defer s.unwatchAll()
	all := s.all()
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	turns := make(chan struct{}, atOnce(how, len(all)))
	for i, a := range all {
		wg.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			errs[i] = a.leave(ctx, how)
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("end instances: %w", err)
	}
	s.wg.Wait()
	return nil
}

// atOnce is how many of n instances leave together: saves would only wait for the disk
// and each other.
func atOnce(how Leaving, n int) int {
	if how == PutAsleep {
		return 4
	}
	return max(1, n)
}

func (s *Set) unwatchAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.watchers {
		s.unwatch(c)
	}
}

var errClosing = fault.New(fault.Unavailable, "aegisd is shutting down").WithHint("start it again: aegis up")

func (s *Set) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

// explain puts what a caller of a shutting daemon sees in terms of the shutdown.
func (s *Set) explain(err error) error {
	if s.isClosing() && (errors.Is(err, ErrSuperseded) || errors.Is(err, ErrDeleted) || errors.Is(err, ErrEnded)) {
		return errClosing
	}
	return err
}

// Recover takes over what an earlier daemon left: instances are known again, machines
// that run are adopted, and what nobody owns is cleared away. It is called once,
// before anything else.
func (s *Set) Recover(ctx context.Context) error {
	records, err := s.world.Store.LoadInstances(ctx)
	if err != nil {
		return err
	}
	known := map[ID]bool{}
	for _, r := range records {
		known[r.ID] = true
		if err := s.adopt(ctx, r); err != nil {
			return fmt.Errorf("take over %s: %w", r.ID, err)
		}
	}
	ids, err := s.world.Ground.Leftovers()
	if err != nil {
		return fmt.Errorf("list instances: %w", err)
	}
	var errs []error
	for _, id := range ids {
		if !known[id] {
			s.world.Log.InfoContext(ctx, "clear away", logattr.Instance(id))
			errs = append(errs, s.clearAway(ctx, id))
		}
	}
	s.awaitAdopted(ctx)
	errs = append(errs, s.endOrphans(ctx))
	return errors.Join(errs...)
}

// awaitAdopted waits until machines that run are taken over, so that nobody is told
// that they are starting. A guest that is slow to answer keeps nobody waiting for
// long.
func (s *Set) awaitAdopted(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, s.world.Limits.Adopt)
	defer cancel()
	for _, a := range s.all() {
		select {
		case <-a.born:
		case <-ctx.Done():
			return
		}
	}
}

// adopt makes an instance known again, with its machine if that still runs.
func (s *Set) adopt(ctx context.Context, r Record) error {
	a, err := s.add(r)
	if err != nil {
		return err
	}
	if a.output, err = a.openLog(); err != nil {
		return err
	}
	m, err := s.world.Driver.Adopt(ctx, s.world.Ground.Dir(r.ID))
	switch {
	case s.world.Ground.Saved(r.ID):
		// A machine that is found beside its saved memory has not run since.
		if err == nil {
			err = s.endFound(ctx, m)
		}
		if err != nil && !errors.Is(err, vmm.ErrEnded) {
			return err
		}
		a.snap.Hibernated = true
		a.refresh()
	case err == nil && s.world.Ground.CutOff(r.ID):
		if err := s.endFound(ctx, m); err != nil {
			return err
		}
		a.record.Stopped = time.Now()
		a.note(fault.New(fault.Unavailable, "the daemon ended while the VM was started"))
		a.refresh()
	case err == nil:
		a.bornBooting(a.adopt(m))
	case errors.Is(err, vmm.ErrEnded) && (r.Stopped.IsZero() || errors.Is(err, vmm.ErrUnseen)):
		// The record need not know: it is not written when an instance wakes.
		a.record.Stopped = time.Now()
		a.note(fault.New(fault.Unavailable, "the VM ended while no daemon ran"))
		a.refresh()
	case !errors.Is(err, vmm.ErrEnded):
		return err
	}
	if r.Enabled {
		a.reopenDoors()
		a.refresh()
	}
	s.begin(a)
	return nil
}

// endFound ends a machine that was found and is not wanted.
func (s *Set) endFound(ctx context.Context, m vmm.Machine) error {
	ctx, cancel := context.WithTimeout(ctx, s.world.Limits.Kill)
	defer cancel()
	return m.Kill(ctx)
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
	return s.world.clear(id)
}
