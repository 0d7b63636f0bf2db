package instance

import (
	"context"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// Settings is what changes of an instance while it lives. A nil field stays as it is.
type Settings struct {
	PauseAfter *time.Duration
	StopAfter  *time.Duration
	IdlePolicy *IdlePolicy
	Mode       *string   // of its Egress
	Allow      *[]string // of its Egress; all there are
}

// apply returns spec as it is to be.
func (c Settings) apply(spec Spec) (Spec, error) {
	if c.PauseAfter != nil {
		spec.PauseAfter = *c.PauseAfter
	}
	if c.StopAfter != nil {
		spec.StopAfter = *c.StopAfter
	}
	if c.IdlePolicy != nil {
		spec.IdlePolicy = *c.IdlePolicy
	}
	if c.Mode != nil {
		spec.Egress.Mode = *c.Mode
	}
	if c.Allow != nil {
		spec.Egress.Allow = *c.Allow
	}
	if spec.PauseAfter < 0 || spec.StopAfter < 0 {
		return spec, fault.New(fault.Invalid, "a span of time cannot be negative")
	}
	return spec, spec.completeIdle()
}

// Adjust changes settings of an instance in whatever state it is. They are remembered when
// Adjust returns, and in force: the time that it is given to sleep begins anew, and
// connections that it may not have any more are cut.
func (s *Set) Adjust(ctx context.Context, ref string, c Settings) (View, error) {
	a, err := s.find(ref)
	if err != nil {
		return View{}, err
	}
	// The rules are checked before the actor is asked, and as they are with it: two changes
	// of them at once are each whole.
	spec, err := c.apply(a.view.Load().Spec)
	if err == nil {
		err = s.world.checkEgress(spec.Egress)
	}
	if err != nil {
		return View{}, err
	}
	if err := a.instruct(ctx, func() error { return a.adjust(c) }); err != nil { //nolint:contextcheck // begun is done, as all that is stored
		return View{}, s.refuse(a, err)
	}
	return *a.view.Load(), nil
}

func (a *actor) adjust(c Settings) error {
	if a.snap.Goal == ToDeleted || a.snap.State == Erasing {
		return ErrDeleted
	}
	before := a.record.Spec
	spec, err := c.apply(before)
	if err != nil {
		return err
	}
	a.record.Spec = spec
	if err := a.save(); err != nil {
		a.record.Spec = before
		return err
	}
	a.refresh() // what makes a network meanwhile takes the policy from there, see plug
	if c.Mode != nil || c.Allow != nil {
		a.applyEgress()
	}
	if a.idle.armed {
		a.armIdle()
	}
	return nil
}

// applyEgress has the run's network follow the policy of now. Without one there is nothing
// to do: the next one begins with it.
func (a *actor) applyEgress() {
	if a.live == nil {
		return
	}
	if n, err := a.live.network(); err == nil {
		n.SetEgress(a.record.Spec.Egress)
	}
}
