package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/xfeldman/aegisvm/api"
)

func newSnapshot(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "snapshot COMMAND",
		Short: "manage snapshots: instances as they were",
		Long: `Manage snapshots: instances as they were at one moment, with memory and disk. They are made with
"aegis instance snapshot X".`,
		Example: `  aegis instance snapshot web before-upgrade
  aegis snapshot list
  aegis instance start --name trial --snapshot before-upgrade`,
		Args: unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newSnapshotList(a), newSnapshotDelete(a))
	return cmd
}

type snapshotListOptions struct {
	app  *app
	json bool
}

func newSnapshotList(a *app) *cobra.Command {
	o := &snapshotListOptions{app: a}
	cmd := &cobra.Command{
		Use:   "list [--json]",
		Short: "list snapshots",
		Long: `List all snapshots, oldest first: of which instance each was taken, which may be gone, when, and what
it takes of the disk next to what it shares with older ones.`,
		Example: `  aegis snapshot list
  aegis snapshot list --json | jq -r '.[].name'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

func (o *snapshotListOptions) run(ctx context.Context) error {
	all, err := o.app.client().Snapshots(ctx)
	if err != nil {
		return err
	}
	if o.json {
		return o.app.printJSON(all)
	}
	if len(all) == 0 {
		o.app.say("no snapshots")
		return nil
	}
	return o.app.print("%s", snapshotsText(all))
}

func snapshotsText(all []api.Snapshot) string {
	rows := [][]string{{"NAME", "INSTANCE", "CREATED", "SIZE", "COMMAND"}}
	for _, s := range all {
		rows = append(rows, []string{
			s.Name, s.Handle, s.CreatedAt.Local().Format(time.DateTime), roundMB(s.Size).String(), shorten(commandText(s.Command), 40),
		})
	}
	return table(rows)
}

type snapshotDeleteOptions struct {
	app  *app
	json bool
}

func newSnapshotDelete(a *app) *cobra.Command {
	o := &snapshotDeleteOptions{app: a}
	cmd := &cobra.Command{
		Use:   "delete [--json] SNAPSHOT",
		Short: "delete a snapshot",
		Long: `Delete a snapshot, by its name or id. Instances that were started from it, and snapshots of those, go
on: what they share with it stays as long as they need it.`,
		Example:           "  aegis snapshot delete before-upgrade",
		Args:              oneSnapshot,
		ValidArgsFunction: a.completeSnapshot,
		RunE:              func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

func (o *snapshotDeleteOptions) run(ctx context.Context, ref string) error {
	out, err := o.app.client().DeleteSnapshot(ctx, ref)
	if err != nil {
		return err
	}
	if o.json {
		return o.app.printJSON(out)
	}
	return o.app.print("Snapshot deleted: %s\n", ref)
}

// oneSnapshot takes the name or id of one snapshot.
func oneSnapshot(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return usage(cmd, "name a snapshot")
	case len(args) > 1:
		return usage(cmd, "stray argument %q", args[1])
	}
	return nil
}

// completeSnapshot completes the name of a snapshot, as completeRef does that of an
// instance.
func (a *app) completeSnapshot(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	all, err := a.client().Snapshots(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []cobra.Completion
	for _, s := range all {
		names = append(names, cobra.CompletionWithDesc(s.Name, "of "+s.Handle))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeRefAndSnapshot completes an instance, then a snapshot.
func (a *app) completeRefAndSnapshot(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return a.completeRef(cmd, args, typed)
	}
	return a.completeSnapshot(cmd, args[1:], typed)
}
