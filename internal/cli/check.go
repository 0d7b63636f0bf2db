package cli

import (
	"context"
	"os"

	"github.com/spf13/cobra"
)

// Check parses a command line as Main does, runs nothing, and returns the exit status that
// a mistake in it would have. What stands on pages is held against the CLI by it.
func Check(args []string) int {
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr, lookup: os.LookupEnv, environ: os.Environ}
	root := newRoot(a)
	idle(root)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(context.Background())
	return a.finish(cmd, err)
}

// idle makes all commands do nothing but to check their flags and operands.
func idle(cmd *cobra.Command) {
	cmd.PersistentPreRunE, cmd.PreRunE = nil, nil
	if cmd.HasParent() && cmd.Name() != "help" { // which does nothing anyway
		cmd.RunE = func(*cobra.Command, []string) error { return nil }
	}
	for _, sub := range cmd.Commands() {
		idle(sub)
	}
}
