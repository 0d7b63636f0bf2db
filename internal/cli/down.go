package cli

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/presence"
)

// downTimeout bounds the wait for the daemon's end. The daemon's own limits end it
// earlier, unless something in the kernel hangs.
const downTimeout = 10 * time.Minute

type downOptions struct {
	app *app

	stop bool
}

func newDown(a *app) *cobra.Command {
	o := &downOptions{app: a}
	cmd := &cobra.Command{
		Use:   "down [--stop]",
		Short: "put everything to sleep, and end the daemon",
		Long: `Save the memory of all instances that run, several at a time, end their VMs, then the daemon, and wait
until it has ended. After the next "aegis up" instances are there as before, and wake where they were
when they are needed. With --stop their programs are stopped instead, and so they are where the VMM
cannot save memory. Programs that aegis run started end with status 125. It is not an error if no
daemon runs; VMs of one that has died are put to sleep, too.`,
		Example: `  aegis down
  aegis down --stop`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	cmd.Flags().BoolVar(&o.stop, "stop", false, "stop programs instead of saving their memory")
	return cmd
}

func (o *downOptions) run(ctx context.Context) error {
	home := o.app.home
	pid, err := o.holder()
	if err != nil {
		return err
	}
	if pid == 0 {
		if !o.abandoned() {
			return o.app.print("aegisd is not running\n")
		}
		o.app.say("aegisd has ended, and left VMs behind; starting it to stop them")
		s, err := o.app.launch(ctx, nil)
		if err != nil {
			return err
		}
		pid = s.PID
	}
	ctx, cancel := context.WithTimeoutCause(ctx, downTimeout,
		fault.New(fault.Timeout, "aegisd, process %d, has not ended within %v", pid, downTimeout).
			WithHint("look at %s; as a last resort: kill -9 %d", home.Log(), pid))
	defer cancel()
	// Whoever starts a daemon now waits until this one has ended.
	starting, err := presence.AcquireWait(ctx, home.StartLock())
	if err != nil {
		return err
	}
	defer func() { _ = starting.Release() }() // ends with this process, too
	o.app.say("stopping aegisd, process %d", pid)
	switch err := o.app.client().Shutdown(ctx, o.stop, o.tell); {
	case ctx.Err() != nil:
		return context.Cause(ctx) // it goes on stopping
	case err != nil:
		// It does not answer, or not as this version asks. A signal ends it, and leaves
		// instances to the next daemon: nothing is lost.
		o.app.say("aegisd does not answer (%v); sending it a signal", err)
		if err := terminate(pid); err != nil {
			return err
		}
	}
	ended, err := presence.AcquireWait(ctx, home.Lock())
	if err != nil {
		return err
	}
	if err := ended.Release(); err != nil {
		return err
	}
	return o.app.print("aegisd has stopped\n")
}

// holder returns the daemon's process, or 0.
func (o *downOptions) holder() (int, error) {
	pid, err := presence.Holder(o.app.home.Lock())
	if errors.Is(err, fs.ErrPermission) {
		return 0, fault.Wrap(fault.Denied, err, "the daemon belongs to another user").WithHint("unset AEGIS_HOME to mean your own")
	}
	return pid, err
}

// abandoned tells whether VMs may still run whose daemon has ended: a driver's sockets go
// with its VM.
func (o *downOptions) abandoned() bool {
	dir := os.DirFS(o.app.home.Instances())
	files, err := fs.Glob(dir, "*/*/*")
	return err == nil && slices.ContainsFunc(files, func(name string) bool {
		fi, err := fs.Lstat(dir, name)
		return err == nil && fi.Mode().Type() == fs.ModeSocket
	})
}

// tell says which instance has been stopped.
func (o *downOptions) tell(e api.Event) {
	if e.To == api.StateStopped {
		o.app.say("stopped %s", e.Handle)
	}
}

func terminate(pid int) error {
	err := syscall.Kill(pid, syscall.SIGTERM)
	switch {
	case err == nil, errors.Is(err, syscall.ESRCH): // it has ended by itself
		return nil
	case errors.Is(err, syscall.EPERM):
		return fault.New(fault.Denied, "aegisd, process %d, belongs to another user", pid).WithHint("sudo kill %d", pid)
	}
	return err
}
