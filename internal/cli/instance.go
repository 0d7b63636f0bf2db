package cli

import "github.com/spf13/cobra"

func newInstance(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "instance COMMAND",
		Short: "manage instances: VMs that stay",
		Long: `Manage instances: VMs that run one command each, and stay until they are deleted.

An instance that nothing holds awake is paused, and wakes when it is needed. It keeps its disk while
it is stopped. Commands take its handle, which is its name, or its id.`,
		Example: `  aegis instance start --name web -- python3 -m http.server
  aegis instance list
  aegis instance delete web`,
		Args: unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newInstanceStart(a), newInstanceList(a), newInstanceInfo(a), newInstanceTree(a), newInstancePrune(a),
		newInstanceExpose(a), newInstanceUnexpose(a), newInstanceSecrets(a), newInstanceSet(a),
		newInstanceSchedule(a), newInstanceSchedules(a), newInstanceUnschedule(a),
		newInstanceFork(a), newInstanceSnapshot(a), newInstanceRestore(a))
	for _, c := range changes {
		cmd.AddCommand(newInstanceChange(a, c))
	}
	return cmd
}
