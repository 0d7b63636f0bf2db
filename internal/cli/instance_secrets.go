package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/secret"
)

type instanceSecretsOptions struct {
	app  *app
	none bool
	json bool
}

func newInstanceSecrets(a *app) *cobra.Command {
	o := &instanceSecretsOptions{app: a}
	cmd := &cobra.Command{
		Use:   "secrets [--json] X KEY...\n  aegis instance secrets [--json] X --none",
		Short: "change which secrets an instance is given",
		Long: `Change which secrets an instance is given in its environment: those that are named, and no others.
'*' is all that are stored. Commands of "aegis exec" have them from now on, the instance's own program
from its next start on. "aegis instance info" names those it is given now.`,
		Example: `  aegis instance secrets web API_KEY DB_URL
  aegis instance secrets web '*'
  aegis instance secrets web --none`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 0:
				return usage(cmd, "name an instance, by its handle or id")
			case len(args) == 1 && !o.none:
				return usage(cmd, "name the secrets, or say --none")
			case len(args) > 1 && o.none:
				return usage(cmd, "--none and names exclude each other")
			}
			for _, name := range args[1:] {
				if name == allSecrets {
					continue
				}
				if err := secret.CheckName(name); err != nil {
					return err
				}
			}
			return nil
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, part string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return a.completeRef(cmd, args, part)
			}
			return a.completeSecret(cmd, nil, part)
		},
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0], args[1:]) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.BoolVar(&o.none, "none", false, "give it none")
	f.BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

func (o *instanceSecretsOptions) run(ctx context.Context, ref string, names []string) error {
	out, err := o.app.client().SetInstanceSecrets(ctx, ref, names)
	if err != nil {
		return err
	}
	if out.RestartRequired {
		o.app.say("the program that runs gets them by: aegis instance restart %s", ref)
	}
	if o.json {
		return o.app.printJSON(out)
	}
	return o.app.print("Instance's secrets: %s\n", secretKeysText(out))
}

func secretKeysText(s api.InstanceSecrets) string {
	if len(s.SecretKeys) == 0 {
		return "none"
	}
	return strings.Join(s.SecretKeys, ", ")
}
