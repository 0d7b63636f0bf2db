package cli

import (
	"context"

	"github.com/spf13/cobra"
)

type upOptions struct{ app *app }

func newUp(a *app) *cobra.Command {
	o := &upOptions{app: a}
	return &cobra.Command{
		Use:   "up",
		Short: "start the daemon",
		Long: `Start the daemon if it is not running, and print its version, the virtual machine
monitor it uses, and how well VMs are isolated from this host.

The daemon needs no root. It keeps running until aegis down. Its settings come from
config.toml in AEGIS_HOME and from the environment (AEGIS_ACCEL=tcg aegis up). Its log is
data/aegisd.log in AEGIS_HOME; when it cannot start, the last lines of it are printed.`,
		Example: `  aegis up
  AEGIS_HOME=/tmp/try aegis up         # another daemon, with everything of its own
  AEGIS_ACCEL=tcg aegis up             # without hardware virtualization`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
}

func (o *upOptions) run(ctx context.Context) error {
	s, err := o.app.launch(ctx, nil)
	if err != nil {
		return err
	}
	return o.app.print("%s", statusText(s))
}
