package cli

import (
	"context"

	"github.com/spf13/cobra"
)

type instanceSnapshotOptions struct {
	app  *app
	json bool
}

func newInstanceSnapshot(a *app) *cobra.Command {
	o := &instanceSnapshotOptions{app: a}
	cmd := &cobra.Command{
		Use:   "snapshot [--json] X [NAME]",
		Short: "keep an instance as it is now",
		Long: `Keep the memory and disk of an instance as they are now, under a name that no other snapshot has;
without NAME that is the snapshot's id. The instance stands still for a moment and goes on. Of one that
is stopped only the disk is kept.

"aegis instance restore" takes the instance back to it; "aegis instance start --snapshot" starts
another one from it. A snapshot stays when its instance is deleted. What the memory holds it holds,
secrets too.`,
		Example: `  aegis instance snapshot web before-upgrade
  aegis instance restore web before-upgrade`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 2 {
				return usage(cmd, "stray argument %q", args[2])
			}
			return oneRef(cmd, args[:min(len(args), 1)])
		},
		ValidArgsFunction: a.completeRef,
		RunE:              func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args) },
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

func (o *instanceSnapshotOptions) run(ctx context.Context, args []string) error {
	name := ""
	if len(args) > 1 {
		name = args[1]
	}
	s, err := o.app.client().Snapshot(ctx, args[0], name)
	if err != nil {
		return err
	}
	if s.Cold {
		o.app.say("%s is stopped: its disk was kept, there is no memory", args[0])
	}
	if o.json {
		return o.app.printJSON(s)
	}
	return o.app.print("Snapshot: %s\nName: %s\n", s.ID, s.Name)
}

type instanceRestoreOptions struct {
	app  *app
	json bool
}

func newInstanceRestore(a *app) *cobra.Command {
	o := &instanceRestoreOptions{app: a}
	cmd := &cobra.Command{
		Use:   "restore [--json] X SNAPSHOT",
		Short: "take an instance back to a snapshot of itself",
		Long: `Take an instance back to a snapshot of itself, by the snapshot's name or id, and return when its
program goes on. Memory and disk are what they were then; what they are now is lost. Name, ports and
settings stay as they are. Programs are not told: those that run now end, those of then go on, with the
time of now. From a snapshot of another instance start a new one, with "aegis instance start --snapshot".`,
		Example:           "  aegis instance restore web before-upgrade",
		Args:              refAnd("snapshot"),
		ValidArgsFunction: a.completeRefAndSnapshot,
		RunE:              func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args) },
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

func (o *instanceRestoreOptions) run(ctx context.Context, args []string) error {
	out, err := o.app.client().Restore(ctx, args[0], args[1])
	if err != nil {
		return err
	}
	if o.json {
		return o.app.printJSON(out)
	}
	return o.app.print("Instance restored: %s\n", out.ID)
}
