package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/xfeldman/aegisvm/internal/secret"
)

func newSecret(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "secret COMMAND",
		Short: "manage secrets: values that programs get and nobody sees",
		Long: `Manage secrets. A secret is stored encrypted, under the name of an environment variable, and is never
shown again. A program has it in its environment when it is started with --secret NAME; so have the
commands that "aegis exec" runs beside it. It is looked up anew at each start and each exec, so that
a new value needs no more than a restart. --secret '*' gives all there are, where --env does not say
otherwise; a name that both --secret and --env give is an error.

They are encrypted with master.key in AEGIS_HOME, which is made with the first one. A backup of
AEGIS_HOME without that file is a backup without the secrets.`,
		Example: `  aegis secret set API_KEY < key.txt
  aegis run --secret API_KEY -- ./deploy
  aegis secret list`,
		Args: unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newSecretSet(a), newSecretList(a), newSecretDelete(a), newSecretRotate(a))
	return cmd
}

// oneSecret takes the name of one secret.
func oneSecret(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return usage(cmd, "name a secret")
	case len(args) > 1:
		return usage(cmd, "stray argument %q", args[1])
	}
	return secret.CheckName(args[0])
}

// completeSecret completes the name of a secret, as completeRef does that of an
// instance.
func (a *app) completeSecret(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	all, err := a.client().Secrets(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []cobra.Completion
	for _, s := range all {
		names = append(names, s.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// secretsFlag is --secret.
type secretsFlag []string

func (f *secretsFlag) Set(name string) error {
	if name != allSecrets {
		if err := secret.CheckName(name); err != nil {
			return err
		}
	}
	*f = append(*f, name)
	return nil
}

// allSecrets is the name that stands for all.
const allSecrets = "*"

func (*secretsFlag) String() string { return "" }
func (*secretsFlag) Type() string   { return "name" }
