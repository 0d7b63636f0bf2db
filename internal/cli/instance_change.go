package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
)

// change is a command that brings one instance into a state. They differ in nothing
// but words, so that they share a file.
type change struct {
	name  string
	done  string // what is told when it has happened
	short string
	long  string
	do    func(*client.Client, context.Context, string) (api.Outcome, error)
}

var changes = []change{
	{
		"disable", "disabled", "stop an instance and keep it from waking",
		`Stop an instance's VM, and keep it stopped: nothing wakes it but "aegis instance start --name X". Its
disk stays. Programs get SIGTERM, and SIGKILL 10 seconds later.`,
		(*client.Client).Disable,
	},
	{
		"delete", "deleted", "remove an instance with all it has",
		`Stop an instance's VM and remove the instance, its disk and its log. There is no way back. Programs get
SIGTERM, and SIGKILL 10 seconds later.`,
		(*client.Client).Delete,
	},
	{
		"pause", "paused", "stop an instance's virtual CPUs",
		`Stop the virtual CPUs of an instance that runs. Its memory stays as it is. What holds it awake does not
matter: commands that "aegis exec" runs in it go on when it wakes, which it does when it is needed or
with "aegis instance resume". It is an error if the instance is stopped.`,
		(*client.Client).Pause,
	},
	{
		"resume", "resumed", "wake an instance",
		`Wake an instance that is paused, or start one that is stopped, and return when its program runs. The
clock in the VM is right before anything runs there. It is an error if the instance is disabled.`,
		(*client.Client).Resume,
	},
	{
		"restart", "restarted", "stop an instance's VM and start it again",
		`Stop an instance's VM and start it again, with the same disk; return when its program runs. One that is
stopped or disabled is started.`,
		(*client.Client).Restart,
	},
	{
		"stop", "stopped", "stop an instance's VM",
		`Stop an instance's VM. Its disk stays; it is started again when it is needed, or by
"aegis instance resume". To keep it stopped, disable it. Programs get SIGTERM, and SIGKILL 10 seconds
later. With --hibernate its memory is saved first: nothing is told to programs, and they go on where
they were when the instance wakes. Without, memory that was saved before is dropped.`,
		(*client.Client).Stop,
	},
}

type changeOptions struct {
	app       *app
	change    change
	hibernate bool // of stop
	json      bool
}

func newInstanceChange(a *app, c change) *cobra.Command {
	o := &changeOptions{app: a, change: c}
	cmd := &cobra.Command{
		Use:               c.name + " [--json] X",
		Short:             c.short,
		Long:              c.long,
		Example:           "  aegis instance " + c.name + " web",
		Args:              oneRef,
		ValidArgsFunction: a.completeRef,
		RunE:              func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
	if c.name == "stop" {
		cmd.Use = "stop [--hibernate] [--json] X"
		cmd.Flags().BoolVar(&o.hibernate, "hibernate", false, "save the memory, and wake where it was")
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

func (o *changeOptions) run(ctx context.Context, ref string) error {
	do, done := o.change.do, o.change.done
	if o.hibernate {
		do, done = (*client.Client).Hibernate, "hibernated"
	}
	out, err := do(o.app.client(), ctx, ref)
	if err != nil {
		return err
	}
	if o.json {
		return o.app.printJSON(out)
	}
	return o.app.print("Instance %s: %s\n", done, out.ID)
}
