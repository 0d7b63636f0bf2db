package cli

import (
	"context"

	"github.com/spf13/cobra"
)

type secretRotateOptions struct{ app *app }

func newSecretRotate(a *app) *cobra.Command {
	o := &secretRotateOptions{app: a}
	return &cobra.Command{
		Use:   "rotate",
		Short: "change the master key",
		Long: `Make a new master.key in AEGIS_HOME and encrypt all secrets anew with it. The old key is gone
afterwards: backups of the database that are older need the key that was saved with them. The values
stay what they are. Whatever interrupts it, all secrets can be read before and after.`,
		Example: "  aegis secret rotate",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
}

func (o *secretRotateOptions) run(ctx context.Context) error {
	n, err := o.app.client().RotateMasterKey(ctx)
	if err != nil {
		return err
	}
	return o.app.print("Master key changed, secrets encrypted anew: %d\n", n)
}
