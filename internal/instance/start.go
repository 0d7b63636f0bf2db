package instance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/logattr"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// boot is the operation of Booting: from nothing, or from memory that was saved, to the
// program running. asleep is the run whose memory was saved, if this daemon knows it.
func (a *actor) boot(ctx context.Context, asleep *live) result {
	return a.bootFrom(ctx, &starting{actor: a, asleep: asleep})
}

func (a *actor) bootFrom(ctx context.Context, s *starting) result {
	ctx, cancel := context.WithTimeoutCause(ctx, a.world.Limits.Boot,
		fault.New(fault.Timeout, "the VM was not ready within %v", a.world.Limits.Boot).By(fault.Guest).
			WithHint("the host may be overloaded; see: aegis doctor"))
	defer cancel()
	if err := a.world.admit(a.spec.Memory); err != nil {
		return result{err: err}
	}
	l, err := s.run(ctx, false)
	if err != nil && s.canBoot(ctx, err) {
		a.remark("%v", s.excuse(err))
		a.log.WarnContext(ctx, "start cold", logattr.Err(err))
		l, err = s.run(ctx, true)
	}
	if err != nil {
		return result{err: err, spent: s.spent}
	}
	return result{live: l}
}

// starting is one start of a machine.
type starting struct {
	*actor

	asleep *live
	from   *captured // what it starts from; nil is what it has itself
	kind   StartKind
	linked bool // the guest has answered
	spent  bool // memory that was saved is not any more
}

// canBoot reports whether a boot may succeed where a start from saved memory has
// failed, and loses nothing: what was saved is of no use to anybody.
func (s *starting) canBoot(ctx context.Context, err error) bool {
	switch {
	case ctx.Err() != nil, fault.KindOf(err) == fault.Exhausted, fault.ExitOf(err) != 0: // the last is the program's fault
		return false
	case s.kind == Clone:
		return !s.linked // what fails with the guest at hand fails in any guest
	}
	return (s.kind == Wake || s.kind == Fork && s.from.kept) && (errors.Is(err, vmm.ErrStale) || errors.Is(err, vmm.ErrDamaged))
}

// excuse says what a boot means where something else was expected.
func (s *starting) excuse(err error) error {
	if s.kind == Wake || s.kind == Fork {
		return fmt.Errorf("the saved memory cannot be used, the program starts anew: %w", err)
	}
	return fmt.Errorf("the template cannot be used, the machine boots: %w", err)
}

// run starts the machine and makes it the instance's own.
func (s *starting) run(ctx context.Context, cold bool) (*live, error) {
	plan, err := s.plan(ctx, cold)
	s.kind = plan.Kind
	if err != nil {
		return nil, err
	}
	if plan.Release != nil {
		defer plan.Release()
	}
	if s.asleep != nil && plan.Kind != Wake && !cold {
		s.remark("the saved memory is not there any more, the program starts anew")
	}
	env, err := s.env(ctx)
	if err != nil {
		return nil, err
	}
	m, err := s.world.Driver.Start(ctx, plan.Recipe, plan.Source)
	if err != nil {
		if plan.Failed != nil && ctx.Err() == nil {
			plan.Failed(err)
		}
		return nil, s.startFault(ctx, err)
	}
	if plan.Kind == Wake {
		return s.wake(ctx, m)
	}
	s.forget(ctx) // a boot makes what was saved worthless: its disk changes
	l := newLive()
	s.follow(ctx, l, m)
	if s.output != nil {
		if err := s.output.Restart(); err != nil {
			s.log.ErrorContext(ctx, "the log does not say that the program starts anew", logattr.Err(err))
		}
	}
	err = s.enter(ctx, l, func(ctx context.Context) error { return s.begin(ctx, l, plan, env) })
	if err != nil {
		return nil, s.giveUp(ctx, l, err)
	}
	return l, nil
}

func (s *starting) plan(ctx context.Context, cold bool) (Plan, error) {
	if s.from == nil || cold {
		return s.world.Ground.Prepare(ctx, s.id, s.spec, s.magic, cold)
	}
	return s.from.Start(ctx, s.id, s.spec, s.magic)
}

// env returns the environment of a program that is to be started.
func (s *starting) env(ctx context.Context) ([]string, error) {
	if s.kind == Wake || s.kind == Fork {
		return nil, nil // it has one
	}
	return s.world.environment(ctx, s.given, s.spec.Command, s.spec.Env)
}

// forget ends the run that slept, and drops its memory.
func (s *starting) forget(ctx context.Context) {
	if err := s.world.Ground.Spend(context.WithoutCancel(ctx), s.id); err != nil {
		s.log.ErrorContext(ctx, "drop saved memory", logattr.Err(err))
	}
	s.spent = true
	if s.asleep != nil {
		s.asleep.end(fault.New(fault.Unavailable, "the VM's memory was lost, the program started anew").By(fault.Host))
		s.asleep = nil
	}
}

// begin makes a machine that was just started an instance, and starts its program.
func (s *starting) begin(ctx context.Context, l *live, plan Plan, env []string) error {
	if err := s.plug(ctx, l); err != nil {
		return err
	}
	hello, magic := s.hello(), s.magic
	if plan.Kind == Fork {
		return s.goOn(ctx, l)
	}
	if plan.Kind == Clone {
		if err := l.current().machine.Resume(ctx); err != nil {
			return err
		}
		magic, hello.Rekey = plan.Magic, &s.magic
		hello.Identity.Clone, hello.DiskBytes = true, int64(s.spec.Disk)
	}
	if err := s.link(ctx, l, magic, hello); err != nil {
		return err
	}
	s.linked = true
	if err := s.share(ctx, l, Begins); err != nil {
		return err
	}
	if err := s.mount(ctx, l); err != nil {
		return err
	}
	if err := l.guest.Spawn(ctx, s.program(env)); err != nil {
		return err
	}
	if err := s.world.Ground.Started(s.id); err != nil {
		return err
	}
	l.started = time.Now()
	l.wires.expect(l.started.Add(s.world.Limits.Listen))
	return s.attach(ctx, l, 0)
}

// wake goes on with memory that was saved, in a machine that has been loaded with it.
// From the moment at which it runs, what is on disk is of the past.
func (s *starting) wake(ctx context.Context, m vmm.Machine) (*live, error) {
	l := s.asleep
	if l == nil {
		l = newLive()
	}
	s.follow(ctx, l, m)
	err := s.plug(ctx, l)
	if err == nil {
		err = s.share(ctx, l, GoesOn)
	}
	if err == nil {
		err = s.world.Ground.Spend(ctx, s.id)
	}
	if err != nil { // it has not run: it is still asleep
		l.embody(nil)
		return nil, errors.Join(err, m.Kill(context.WithoutCancel(ctx)))
	}
	s.spent = true
	err = s.enter(ctx, l, func(ctx context.Context) error {
		if err := m.Resume(ctx); err != nil {
			return err
		}
		if l.guest == nil {
			return s.join(ctx, l)
		}
		hello := s.hello()
		hello.Identity = nil // it has one
		if err := l.guest.Reopen(ctx, m, hello); err != nil {
			return err
		}
		s.remount(ctx, l)
		l.reap(ctx)
		l.wires.awoke(l.slept)
		return nil
	})
	if err != nil {
		return nil, s.giveUp(ctx, l, err)
	}
	return l, nil
}

// startFault explains a machine that the driver did not start.
func (a *actor) startFault(ctx context.Context, err error) error {
	if fault.KindOf(context.Cause(ctx)) == fault.Timeout { // the guest has not run yet
		err = fault.New(fault.Timeout, "the VM did not start within %v", a.world.Limits.Boot).By(fault.Driver).
			WithHint("the host may be overloaded; see: aegis doctor")
	}
	return fmt.Errorf("start %s: %w", a.id, err)
}

// enter does what makes a machine an instance's own. It ends early when the machine
// does.
func (a *actor) enter(ctx context.Context, l *live, do func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := make(chan struct{})
	defer close(stop)
	a.ops.Go(func() {
		select {
		case <-l.gone:
			cancel(l.cause())
		case <-stop:
		}
	})
	return do(ctx)
}

// adopt is the operation of Booting in a daemon that finds its instance's machine
// running, as an earlier daemon left it.
func (a *actor) adopt(m vmm.Machine) func(context.Context) result {
	return func(ctx context.Context) result {
		ctx, cancel := context.WithTimeout(ctx, a.world.Limits.Boot)
		defer cancel()
		l := newLive()
		a.follow(ctx, l, m)
		paused, err := m.Paused(ctx)
		if err == nil {
			err = a.plug(ctx, l)
		}
		if err == nil {
			a.shareAgain(ctx, l)
		}
		if err == nil && !paused {
			err = a.enter(ctx, l, func(ctx context.Context) error { return a.join(ctx, l) })
		}
		if err != nil {
			return result{err: a.giveUp(ctx, l, fmt.Errorf("adopt %s: %w", a.id, err))}
		}
		return result{live: l, paused: paused}
	}
}

// giveUp ends a machine that did not come up and says why: what ended the machine
// itself tells more than what the link saw of it.
func (a *actor) giveUp(ctx context.Context, l *live, err error) error {
	switch cause := context.Cause(ctx); {
	case l.endedBy(err):
		err = l.cause()
	case cause != nil:
		err = cause
	}
	if killErr := a.kill(ctx, l); killErr != nil {
		a.log.ErrorContext(ctx, "kill after a failed boot", logattr.Err(killErr))
	} else if fault.KindOf(err) == fault.Timeout {
		a.quote(ctx, l.current())
	}
	return err
}

// kill ends a machine for sure, whether or not ctx has ended.
func (a *actor) kill(ctx context.Context, l *live) error {
	b := l.current()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.world.Limits.Kill)
	defer cancel()
	if err := b.machine.Kill(ctx); err != nil {
		return fmt.Errorf("kill %s: %w", a.id, err)
	}
	<-b.over
	return nil
}
