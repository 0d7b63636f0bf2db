package daemon

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/cron"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/logattr"
	"github.com/xfeldman/aegisvm/internal/schedule"
	"github.com/xfeldman/aegisvm/internal/tether"
)

// openSchedules makes the schedules of the instances there are. They begin with follow.
func (d *daemon) openSchedules(ctx context.Context, s schedule.Store) {
	d.timers = schedule.New(schedule.Config{Store: s, Instances: scheduled{d.set}, Agents: agents{d.set, d.tether}, Log: d.Log})
	if err := d.timers.Load(ctx); err != nil {
		d.Log.ErrorContext(ctx, "some schedules cannot be read", logattr.Err(err)) // the others go on
	}
}

// runSchedules does what is due from now on.
func (d *daemon) runSchedules(ctx context.Context) {
	changes, stop := d.set.Watch()
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	followed, ran := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(followed)
		d.timers.Follow(changes)
	}()
	go func() {
		defer close(ran)
		d.timers.Run(ctx)
	}()
	d.parts.push("schedules", func(context.Context) error {
		cancel()
		stop()
		<-followed
		<-ran
		return nil
	})
}

// scheduled is the core as schedules see it. It implements schedule.Instances.
type scheduled struct{ set *instance.Set }

// Start implements schedule.Instances.
func (s scheduled) Start(ctx context.Context, id instance.ID, command []string) (schedule.Running, error) {
	x, err := s.set.Exec(ctx, string(id), instance.ExecSpec{Command: command})
	if err != nil {
		return nil, err
	}
	return scheduledExec{ctx, x}, nil
}

// Note implements schedule.Instances.
func (s scheduled) Note(id instance.ID, line string) { s.set.Note(string(id), line) }

// scheduledExec is a command that nobody watches: its output is in the instance's log.
type scheduledExec struct {
	ctx context.Context //nolint:containedctx // of the Runner
	*instance.Exec
}

// ID implements schedule.Running.
func (x scheduledExec) ID() string { return string(x.Exec.ID()) }

// Wait implements schedule.Running.
func (x scheduledExec) Wait() (status int, err error) {
	stop := context.AfterFunc(x.ctx, func() { _ = x.Close() }) // Wait closes it too
	defer stop()
	defer func() { err = errors.Join(err, x.Close()) }()
	for {
		f, err := x.Recv()
		switch {
		case x.ctx.Err() != nil:
			return 0, context.Cause(x.ctx)
		case errors.Is(err, io.EOF):
			return 0, fault.New(fault.Unavailable, "it ended without a status").By(fault.Guest)
		case err != nil:
			return 0, err
		case f.Type == frame.Exit:
			n, err := f.Status()
			return int(n), err
		}
	}
}

// agents is the instances that have an agent, as schedules see them: those of a kit. It
// implements schedule.Agents.
type agents struct {
	set    *instance.Set
	tether *tether.Tether
}

// List implements schedule.Agents.
func (a agents) List() []instance.ID {
	var ids []instance.ID
	for _, v := range a.set.List() {
		if v.Spec.Kit.Name != "" {
			ids = append(ids, v.ID)
		}
	}
	return ids
}

// CronFile implements schedule.Agents.
func (a agents) CronFile(id instance.ID) ([]byte, error) {
	return readCronFile(func() (instance.Files, error) { return a.set.Files(string(id)) })
}

// readCronFile returns nil where there is no workspace yet, or no such file in it.
func readCronFile(open func() (instance.Files, error)) (_ []byte, err error) {
	files, err := open()
	if err == nil {
		defer func() { err = errors.Join(err, files.Close()) }()
		var b []byte
		if b, err = files.ReadAtMost(cron.File, cron.MaxFile); err == nil {
			return b, nil
		}
	}
	if fault.KindOf(err) == fault.NotFound {
		return nil, nil
	}
	return nil, err
}

// Send implements schedule.Agents.
func (a agents) Send(ctx context.Context, id instance.ID, f api.Frame) error {
	v, err := a.set.Get(string(id))
	if err != nil {
		return err
	}
	if !v.Enabled {
		return fault.New(fault.Conflict, "%s is disabled", v.Spec.Handle)
	}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	_, err = a.tether.Send(ctx, string(id), f)
	return err
}

// sendTimeout keeps an instance that does not wake from stopping the messages of others.
const sendTimeout = 2 * time.Minute
