package cli

import (
	"io"

	"github.com/spf13/cobra"
)

// completions writes the script of each shell.
var completions = map[string]func(*cobra.Command, io.Writer) error{
	"bash":       func(c *cobra.Command, w io.Writer) error { return c.GenBashCompletionV2(w, true) },
	"zsh":        func(c *cobra.Command, w io.Writer) error { return c.GenZshCompletion(w) },
	"fish":       func(c *cobra.Command, w io.Writer) error { return c.GenFishCompletion(w, true) },
	"powershell": func(c *cobra.Command, w io.Writer) error { return c.GenPowerShellCompletionWithDesc(w) },
}

func newCompletion(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "print a script that completes aegis commands in a shell",
		Example: `  source <(aegis completion bash)
  aegis completion zsh > "${fpath[1]}/_aegis"
  aegis completion fish > ~/.config/fish/completions/aegis.fish`,
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 || completions[args[0]] == nil {
				return usage(cmd, "name one shell: bash, zsh, fish or powershell")
			}
			return completions[args[0]](cmd.Root(), a.out)
		},
	}
}
