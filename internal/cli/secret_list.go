package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/xfeldman/aegisvm/api"
)

type secretListOptions struct {
	app  *app
	json bool
}

func newSecretList(a *app) *cobra.Command {
	o := &secretListOptions{app: a}
	cmd := &cobra.Command{
		Use:   "list [--json]",
		Short: "list names and dates of secrets",
		Long:  `List the names of all secrets, when each was stored first, and when its value was set last.`,
		Example: `  aegis secret list
  aegis secret list --json | jq -r '.[].name'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

func (o *secretListOptions) run(ctx context.Context) error {
	all, err := o.app.client().Secrets(ctx)
	if err != nil {
		return err
	}
	if o.json {
		return o.app.printJSON(all)
	}
	if len(all) == 0 {
		o.app.say("no secrets")
		return nil
	}
	return o.app.print("%s", secretsText(all))
}

func secretsText(all []api.Secret) string {
	rows := [][]string{{"NAME", "CREATED", "UPDATED"}}
	for _, s := range all {
		rows = append(rows, []string{s.Name, s.CreatedAt.Local().Format(time.DateTime), s.UpdatedAt.Local().Format(time.DateTime)})
	}
	return table(rows)
}
