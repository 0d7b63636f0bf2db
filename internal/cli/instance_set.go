package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/xfeldman/aegisvm/api"
)

type instanceSetOptions struct {
	app *app

	pauseAfter spanFlag
	stopAfter  spanFlag
	policy     string
	egress     string
	allow      []string
	json       bool
}

func newInstanceSet(a *app) *cobra.Command {
	o := &instanceSetOptions{app: a}
	cmd := &cobra.Command{
		Use:   "set OPTIONS X",
		Short: "change how an instance sleeps and what it may reach",
		Long: `Change how an instance sleeps and what it may reach, in whatever state it is. It holds at once:
connections that it may not have any more are cut, and the time until it sleeps begins anew. What is
not given stays as it is. --allow-host replaces all rules there are; --allow-host '' takes them away.`,
		Example: `  aegis instance set web --pause-after 10m --stop-after 1h
  aegis instance set web --egress none --allow-host api.example.com:443
  aegis instance set web --egress public --allow-host ''`,
		Args:              oneRef,
		ValidArgsFunction: a.completeRef,
		RunE:              func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), cmd, args[0]) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.Var(&o.pauseAfter, "pause-after", "pause the instance when nothing has held it awake for `DURATION`; 0 is never")
	f.Var(&o.stopAfter, "stop-after", "save its memory to disk when it has been paused for `DURATION`; 0 is never")
	f.StringVar(&o.policy, "idle-policy", "", "what else keeps it awake: `default|leases_only`; the latter ignores what the guest does")
	f.StringVar(&o.egress, "egress", "", "what the VM may reach: `none|public|all`")
	f.StringArrayVar(&o.allow, "allow-host", nil, "let the VM reach `NAME|CIDR[:PORT]` (repeat)")
	f.BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

func (o *instanceSetOptions) run(ctx context.Context, cmd *cobra.Command, ref string) error {
	req := api.ChangeRequest{PauseAfterS: o.pauseAfter.wholeSeconds(), StopAfterS: o.stopAfter.wholeSeconds()}
	flags := cmd.Flags()
	if flags.Changed("idle-policy") {
		req.IdlePolicy = &o.policy
	}
	if flags.Changed("egress") {
		req.Egress = &o.egress
	}
	if flags.Changed("allow-host") {
		if len(o.allow) == 1 && o.allow[0] == "" {
			o.allow = []string{}
		}
		req.AllowHosts = &o.allow
	}
	if req == (api.ChangeRequest{}) {
		return usage(cmd, "nothing to change")
	}
	info, err := o.app.client().Set(ctx, ref, req)
	if err != nil {
		return err
	}
	if o.json {
		return o.app.printJSON(info)
	}
	return o.app.print("Instance changed: %s\n", info.ID)
}
