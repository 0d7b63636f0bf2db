package cli

import (
	"cmp"
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/xfeldman/aegisvm/api"
)

type instanceListOptions struct {
	app     *app
	running bool
	stopped bool
	json    bool
}

func newInstanceList(a *app) *cobra.Command {
	o := &instanceListOptions{app: a}
	cmd := &cobra.Command{
		Use:   "list [--running|--stopped] [--json]",
		Short: "list instances",
		Long: `List instances: those that run first, then those that start, are paused, stopped, and
disabled; within each the oldest first.`,
		Example: `  aegis instance list
  aegis instance list --stopped
  aegis instance list --json | jq -r '.[].handle'`,
		Args: func(cmd *cobra.Command, args []string) error {
			if o.running && o.stopped {
				return usage(cmd, "--running and --stopped exclude each other")
			}
			return noArgs(cmd, args)
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.BoolVar(&o.running, "running", false, "only those that run")
	f.BoolVar(&o.stopped, "stopped", false, "only those that are stopped, disabled ones among them")
	f.BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

func (o *instanceListOptions) run(ctx context.Context) error {
	state := ""
	switch {
	case o.running:
		state = api.StateRunning
	case o.stopped:
		state = api.StateStopped
	}
	list, err := o.app.client().List(ctx, state)
	if err != nil {
		return err
	}
	if o.json {
		return o.app.printJSON(list)
	}
	if len(list) == 0 {
		o.app.say("no instances")
		return nil
	}
	return o.app.print("%s", listText(list, time.Now()))
}

// commandWidth is how much of a command a list shows.
const commandWidth = 50

func listText(list []api.Instance, now time.Time) string {
	rows := [][]string{{"ID", "HANDLE", "KIT", "STATUS", "STATE", "AGE", "COMMAND"}}
	for _, i := range list {
		status := "enabled"
		if !i.Enabled {
			status = "disabled"
		}
		rows = append(rows, []string{
			i.ID, i.Handle, cmp.Or(i.Kit, "-"), status, i.State,
			spanText(now.Sub(i.CreatedAt)), shorten(commandText(i.Command), commandWidth),
		})
	}
	return table(rows)
}
