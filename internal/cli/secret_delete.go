package cli

import (
	"context"

	"github.com/spf13/cobra"
)

type secretDeleteOptions struct{ app *app }

func newSecretDelete(a *app) *cobra.Command {
	o := &secretDeleteOptions{app: a}
	return &cobra.Command{
		Use:   "delete KEY",
		Short: "forget a secret",
		Long: `Forget a secret. There is no way back. Programs that run keep it; the next start or exec of an
instance that asks for it by name is an error.`,
		Example:           "  aegis secret delete API_KEY",
		Args:              oneSecret,
		ValidArgsFunction: a.completeSecret,
		RunE:              func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
}

func (o *secretDeleteOptions) run(ctx context.Context, name string) error {
	if err := o.app.client().DeleteSecret(ctx, name); err != nil {
		return err
	}
	return o.app.print("Secret deleted: %s\n", name)
}
