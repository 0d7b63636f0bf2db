package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xfeldman/aegisvm/api"
)

type instancePruneOptions struct {
	app  *app
	age  spanFlag
	json bool
}

func newInstancePrune(a *app) *cobra.Command {
	o := &instancePruneOptions{app: a, age: spanFlag{text: "7d"}}
	cmd := &cobra.Command{
		Use:   "prune [--stopped-older-than AGE] [--json]",
		Short: "delete instances that have been stopped for long",
		Long: `Delete the instances that have been stopped for longer than an age, with their disks and logs,
and print their ids. There is no way back.`,
		Example: `  aegis instance prune
  aegis instance prune --stopped-older-than 12h
  aegis instance prune --stopped-older-than 0    # all that are stopped`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.Var(&o.age, "stopped-older-than", "`AGE` such as 30m, 12h or 7d")
	f.BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

func (o *instancePruneOptions) run(ctx context.Context) error {
	ids, err := o.app.client().Prune(ctx, o.age.text)
	if err != nil {
		return err
	}
	if o.json {
		return o.app.printJSON(api.Pruned{Pruned: len(ids), IDs: ids})
	}
	if len(ids) == 0 {
		o.app.say("nothing to prune")
		return nil
	}
	return o.app.print("%s\n", strings.Join(ids, "\n"))
}
