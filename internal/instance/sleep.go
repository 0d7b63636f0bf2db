package instance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/logattr"
)

// pause is the operation of Pausing. Programs are frozen before the vCPUs stop, so that
// none runs on a clock that stood still before the guest has been told the time.
func (a *actor) pause(ctx context.Context, l *live) error {
	a.freeze(ctx, l)
	l.slept = time.Now()
	err := l.current().machine.Pause(ctx)
	if err != nil && !l.isGone() {
		err = errors.Join(err, l.guest.Thaw(context.WithoutCancel(ctx)))
	}
	return err
}

// freeze stops the guest's programs and has them write back what is dirty. A guest that
// does not do it in time is paused all the same.
func (a *actor) freeze(ctx context.Context, l *live) {
	ctx, cancel := context.WithTimeout(ctx, a.world.Limits.Freeze)
	defer cancel()
	stuck, err := l.guest.Freeze(ctx, a.world.Limits.Freeze/4)
	if err != nil && !l.isGone() {
		a.log.WarnContext(ctx, "freeze", logattr.Err(err))
	}
	for _, p := range stuck {
		a.log.WarnContext(ctx, "a process does not freeze", logattr.Why(p))
	}
}

// resume is the operation of Resuming. The guest's clock stood still: it is set
// before anybody is told that the instance is awake.
func (a *actor) resume(ctx context.Context, l *live) error {
	m := l.current().machine
	if err := m.Resume(ctx); err != nil {
		return err
	}
	if err := a.rouse(ctx, l); err != nil {
		// It is not awake to anybody: let it be what the state says it is.
		return errors.Join(err, m.Pause(context.WithoutCancel(ctx)))
	}
	l.wires.awoke(l.slept)
	return nil
}

// rouse brings a guest whose vCPUs run again up to date.
func (a *actor) rouse(ctx context.Context, l *live) error {
	ctx, cancel := context.WithTimeoutCause(ctx, a.world.Limits.Thaw,
		fault.New(fault.Timeout, "the VM's guest did not answer within %v of its wake", a.world.Limits.Thaw).By(fault.Guest).
			WithHint("end it with: aegis instance stop %s", a.spec.Handle))
	defer cancel()
	if l.guest == nil {
		l.moved = false
		return a.join(ctx, l)
	}
	if l.moved {
		hello := a.hello()
		hello.Identity = nil // it has one
		if err := l.guest.Reopen(ctx, l.current().machine, hello); err != nil {
			return err
		}
		l.moved = false
	}
	if err := l.guest.Thaw(ctx); err != nil {
		return err
	}
	l.reap(ctx)
	return nil
}

// hibernate is the operation of Saving: the memory of a paused machine goes to disk,
// and the machine ends. After an error the machine is paused as before.
func (a *actor) hibernate(ctx context.Context, l *live) error {
	b := l.current()
	ctx, cancel := context.WithTimeoutCause(ctx, a.world.Limits.Save,
		fault.New(fault.Timeout, "the VM's memory was not saved within %v", a.world.Limits.Save).By(fault.Host).
			WithHint("is the disk slow, or full?"))
	defer cancel()
	if err := a.world.Ground.Save(ctx, a.id, b.machine); err != nil {
		return fmt.Errorf("hibernate %s: %w", a.spec.Handle, err)
	}
	// What is saved is whole: from here on the machine is of no more use.
	l.wires.hangUp(ErrSuperseded)
	if l.guest != nil {
		l.guest.Suspend()
	}
	l.embody(nil)
	ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), a.world.Limits.Kill)
	defer cancel()
	if err := b.machine.Kill(ctx); err != nil {
		l.embody(b)
		return errors.Join(fmt.Errorf("kill %s: %w", a.id, err), a.world.Ground.Spend(ctx, a.id))
	}
	<-b.over
	return nil
}

// stop is the operation of Stopping: in good order where the instance's disk outlives the
// machine, else at once. Of an instance that sleeps on disk it drops the
// memory.
func (a *actor) stop(ctx context.Context, l, asleep *live, goal Goal) error {
	if l == nil {
		return a.drop(ctx, asleep, fault.Wrap(fault.Conflict, endedError("the VM was stopped"), ""))
	}
	if l.isGone() {
		return nil
	}
	l.asked.Store(true)
	outlived := !a.spec.Ephemeral && goal != ToReverted
	if outlived {
		a.powerOff(ctx, l)
	} else {
		a.flush(ctx, l)
	}
	if err := a.kill(ctx, l); err != nil || !outlived || goal == ToDeleted {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.world.Limits.Save)
	defer cancel()
	if err := a.world.Ground.Tidy(ctx, a.id); err != nil {
		a.log.WarnContext(ctx, "tidy", logattr.Err(err)) // another stop tries again
	}
	return nil
}

// drop removes saved memory, and ends the run that it was of.
func (a *actor) drop(ctx context.Context, asleep *live, why error) error {
	if err := a.world.Ground.Spend(ctx, a.id); err != nil {
		return err
	}
	if asleep != nil {
		asleep.end(why)
	}
	return nil
}

func (a *actor) powerOff(ctx context.Context, l *live) {
	limits := a.world.Limits
	ctx, cancel := context.WithTimeout(ctx, limits.Grace+limits.PowerOff)
	defer cancel()
	m := l.current().machine
	paused, err := m.Paused(ctx)
	if err == nil && paused {
		if err = m.Resume(ctx); err == nil {
			err = a.rouse(ctx, l) // what is frozen cannot end in good order
		}
	}
	if err == nil {
		err = l.guest.PowerOff(ctx, limits.Grace)
	}
	if err == nil {
		_, err = m.Wait(ctx)
	}
	if err != nil && !l.isGone() {
		a.log.WarnContext(ctx, "power off", logattr.Err(err))
	}
}

// erase is the operation of Erasing. The handle is free before the deletion is
// answered.
func (a *actor) erase(ctx context.Context, asleep *live) error {
	err := a.set.endChildren(ctx, a.id, Delete)
	if err == nil {
		err = errors.Join(a.unshared(ctx), a.world.dismiss(ctx, a.id, a.spec))
	}
	if err == nil {
		err = a.world.clear(a.id)
	}
	if err != nil {
		return fmt.Errorf("delete %s: %w", a.id, err)
	}
	if asleep != nil {
		asleep.end(ErrDeleted)
	}
	if a.spec.Ephemeral {
		a.set.remove(a)
		return nil
	}
	err = a.output.Close()
	if err == nil {
		err = a.world.Store.DeleteInstance(ctx, a.id)
	}
	if err == nil {
		a.set.remove(a)
	}
	return err
}
