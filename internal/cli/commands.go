package cli

import (
	"os"

	"github.com/spf13/cobra"
)

// Commands is the tree of all commands, for those who describe them: nothing is run.
func Commands() *cobra.Command {
	root := newRoot(&app{out: os.Stdout, err: os.Stderr, lookup: os.LookupEnv})
	root.InitDefaultHelpCmd()
	return root
}
