package cli

import "github.com/spf13/cobra"

// anyShell becomes bash where the image has it.
var anyShell = []string{"sh", "-c", "command -v bash >/dev/null 2>&1 && exec bash; exec sh"}

func newShell(a *app) *cobra.Command {
	o := &execOptions{app: a, env: envFlags{lookup: a.lookup}, interactive: true}
	cmd := &cobra.Command{
		Use:   "shell [OPTIONS] X",
		Short: "open a shell in an instance",
		Long: `Open a shell in an instance: bash where the image has it, otherwise sh. It is "aegis exec -it" with
that shell. Where stdin is no terminal, the shell gets none either and runs what it reads.

The exit status is the shell's own, or as "aegis exec" has it.`,
		Example: `  aegis shell web
  aegis shell --user nobody web
  echo 'ls -l | wc -l' | aegis shell web`,
		Args:              oneRef,
		ValidArgsFunction: a.completeRef,
		Annotations:       map[string]string{programStatus: "true"},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.tty = isTerminal(a.in)
			return o.run(cmd.Context(), args[0], anyShell)
		},
	}
	cmd.Flags().SortFlags = false
	o.add(cmd.Flags())
	return cmd
}
