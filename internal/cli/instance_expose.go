package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/xfeldman/aegisvm/api"
)

type instanceExposeOptions struct {
	app *app

	bind string
	json bool
}

func newInstanceExpose(a *app) *cobra.Command {
	o := &instanceExposeOptions{app: a}
	cmd := &cobra.Command{
		Use:   "expose [--bind ADDRESS] [--json] X [PUBLIC:]GUEST[/http|tcp]",
		Short: "open a port of an instance on this host",
		Long: `Open a port of an instance on this host, in whatever state the instance is. A connection to it wakes
the instance, and holds it awake while it is open. Programs that listen on the VM's 127.0.0.1 only
are reached too.

Without PUBLIC the port is chosen, and kept until it is unexposed. A port that is open already is
changed to what is asked for now. Ports listen on 127.0.0.1 unless --bind says otherwise.`,
		Example: `  aegis instance expose web 80
  aegis instance expose web 8080:80
  aegis instance expose db 5432/tcp --bind 0.0.0.0`,
		Args:              refAnd("port"),
		ValidArgsFunction: a.completeRef,
		RunE:              func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), cmd, args) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.bind, "bind", "", "`ADDRESS` of this host on which the port is open (default 127.0.0.1)")
	f.BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

func (o *instanceExposeOptions) run(ctx context.Context, cmd *cobra.Command, args []string) error {
	req, err := api.ParseExpose(args[1])
	if err != nil {
		return usage(cmd, "%v", err)
	}
	req.Bind = o.bind
	out, err := o.app.client().Expose(ctx, args[0], req)
	if err != nil {
		return err
	}
	if o.json {
		return o.app.printJSON(out)
	}
	return o.app.print("URL: %s\n", out.URL)
}

type instanceUnexposeOptions struct {
	app *app

	json bool
}

func newInstanceUnexpose(a *app) *cobra.Command {
	o := &instanceUnexposeOptions{app: a}
	cmd := &cobra.Command{
		Use:   "unexpose [--json] X GUEST",
		Short: "close a port of an instance",
		Long: `Close a port of an instance on this host, with the connections that came in on it. The port is named
by its number in the VM.`,
		Example:           "  aegis instance unexpose web 80",
		Args:              refAnd("port"),
		ValidArgsFunction: a.completeRef,
		RunE:              func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), cmd, args) },
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

func (o *instanceUnexposeOptions) run(ctx context.Context, cmd *cobra.Command, args []string) error {
	port, err := api.ParsePort(args[1])
	if err != nil {
		return usage(cmd, "%v", err)
	}
	if err := o.app.client().Unexpose(ctx, args[0], port); err != nil {
		return err
	}
	if o.json {
		return o.app.printJSON(api.Outcome{Status: "unexposed"})
	}
	return o.app.print("Port closed: %d\n", port)
}
