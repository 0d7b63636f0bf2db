package cli

import (
	"context"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/secret"
	"github.com/xfeldman/aegisvm/internal/size"
)

type secretSetOptions struct {
	app   *app
	exact bool
}

func newSecretSet(a *app) *cobra.Command {
	o := &secretSetOptions{app: a}
	cmd := &cobra.Command{
		Use:   "set [--exact] KEY [VALUE]",
		Short: "store a secret",
		Long: `Store a secret, in the place of one of that name if there is one. KEY is the name of an environment
variable; the value is UTF-8 text of 1 MB at most. The daemon is started if it does not run.

The value is what stdin holds, without one line end at its end: "echo hello" gives "hello". All other
line ends stay as they are; with --exact that one stays too. On a terminal the value is asked for,
without showing what is typed. A VALUE on the command line works too, but other users of this host can
see it in the list of processes, and the shell keeps it in its history; "-" there is stdin.

Linux allows 128 KB for an environment variable, and no NUL: larger values can be stored, but not be
given to programs with --secret.`,
		Example: `  aegis secret set API_KEY                 # asks for it
  aegis secret set API_KEY < key.txt
  pass show deploy | aegis secret set DEPLOY_TOKEN
  aegis secret set --exact TLS_KEY < key.pem`,
		Args:              setArgs,
		ValidArgsFunction: a.completeSecret,
		RunE:              func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0], args[1:]) },
	}
	cmd.Flags().BoolVar(&o.exact, "exact", false, "keep the line end at the end of stdin")
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, _ error) error {
		return usage(cmd, "an unknown flag, or a value that begins with '-'"). // which is not shown
											WithHint("put the value on stdin, or behind --, as in: %s KEY -- VALUE", cmd.CommandPath())
	})
	return cmd
}

// setArgs takes a name, and perhaps a value. It shows no argument that may be a value.
func setArgs(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return usage(cmd, "name the secret")
	case len(args) > 2:
		return usage(cmd, "stray arguments behind the value").WithHint("put the value in quotes, or on stdin; see: %s --help", cmd.CommandPath())
	}
	return secret.CheckName(args[0])
}

func (o *secretSetOptions) run(ctx context.Context, name string, args []string) error {
	value, err := o.value(ctx, name, args)
	if err != nil {
		return err
	}
	if err := secret.CheckValue(value); err != nil {
		return err
	}
	if _, err := o.app.launch(ctx, func() { o.app.say("starting aegisd") }); err != nil {
		return err
	}
	if _, err := o.app.client().SetSecret(ctx, name, value); err != nil {
		return err
	}
	switch {
	case len(name)+len(value)+2 > maxVariable:
		o.app.say("%s has more than the %v that Linux allows for an environment variable: --secret cannot give it to a program",
			name, size.Bytes(maxVariable))
	case strings.ContainsRune(value, 0):
		o.app.say("%s has a NUL in it, which no environment variable can have: --secret cannot give it to a program", name)
	}
	return o.app.print("Secret set: %s\n", name)
}

// maxVariable is what Linux allows for NAME=VALUE and the NUL behind it.
const maxVariable = 128 << 10

func (o *secretSetOptions) value(ctx context.Context, name string, args []string) (string, error) {
	if len(args) > 0 && args[0] != "-" {
		o.app.say("a value on the command line can be seen by others and stays in the shell's history;")
		o.app.say("better: aegis secret set %s < FILE, or without a value, to be asked for it", name)
		return args[0], nil
	}
	if isTerminal(o.app.in) {
		return o.app.ask(ctx, "Value of "+name+": ")
	}
	b, err := awaiting(ctx, func() ([]byte, error) {
		return io.ReadAll(io.LimitReader(o.app.in, int64(secret.MaxValue)+int64(len("\r\n"))+1))
	})
	if err != nil {
		return "", fault.Wrap(fault.Invalid, err, "read the value from stdin").WithHint("see: aegis secret set --help")
	}
	if o.exact {
		return string(b), nil
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r"), nil
}
