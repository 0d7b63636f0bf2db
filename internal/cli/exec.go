package cli

import (
	"context"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/xfeldman/aegisvm/api"
)

// execOptions are those of `exec` and `shell`.
type execOptions struct {
	app *app

	env         envFlags
	workdir     string
	user        string
	interactive bool
	tty         bool
}

func newExec(a *app) *cobra.Command {
	o := &execOptions{app: a, env: envFlags{lookup: a.lookup}}
	cmd := &cobra.Command{
		Use:   "exec [OPTIONS] X -- COMMAND [ARG...]",
		Short: "run a command in an instance",
		Long: `Run a command in an instance, beside its own. The instance wakes for it, and stays awake until the
command ends. It has the instance's environment, folder and user unless options say otherwise, and
its secrets as they are stored now.

Output comes as the command writes it, stdout and stderr apart, and is in "aegis logs --exec" too.
With -i the command reads this program's stdin; with -t it gets a terminal, which implies -i where
stdin is a terminal. Ctrl-C ends the command; in a terminal it goes to the command. When this
program goes, the command ends with all it has started.

The exit status is the command's own, or 128 and the number of the signal that ended it; 125 means
that AegisVM failed, 126 that the command cannot be executed, 127 that it was not found, 2 that the
command line is wrong.`,
		Example: `  aegis exec web -- ps aux
  aegis exec -it web -- python3
  tar c src | aegis exec -i web -- tar x -C /srv
  aegis exec --user nobody --workdir /tmp --env KEY=value web -- env`,
		Args:              refAndCommand,
		ValidArgsFunction: a.completeRef,
		Annotations:       map[string]string{programStatus: "true"},
		RunE:              func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0], args[1:]) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.BoolVarP(&o.interactive, "interactive", "i", false, "forward stdin to the command")
	f.BoolVarP(&o.tty, "tty", "t", false, "give the command a terminal")
	o.add(f)
	return cmd
}

// add adds what `exec` and `shell` have in common.
func (o *execOptions) add(f *pflag.FlagSet) {
	o.env.add(f)
	f.StringVar(&o.workdir, "workdir", "", "`DIR` in the VM in which the command starts")
	f.StringVar(&o.user, "user", "", "`USER[:GROUP]` in the VM, by name or number, that the command runs as")
}

func (o *execOptions) run(ctx context.Context, ref string, command []string) error {
	s, err := newSession(o.app, o.interactive, o.tty)
	if err != nil {
		return err
	}
	req := api.ExecRequest{
		Command: command, Env: o.env.merged(), Workdir: o.workdir, User: o.user, Stdin: s.stdin, TTY: s.size(),
	}
	if o.tty {
		req.Env = withTerm(req.Env, o.app.lookup)
	}
	attach, err := o.app.client().Exec(ctx, ref, req)
	if err != nil {
		return err
	}
	status, err := s.stream(ctx, attach)
	if err != nil {
		return err
	}
	if status != 0 {
		return statusError(status)
	}
	return nil
}
