package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
)

type runOptions struct {
	app *app

	spec        specFlags
	interactive bool
	tty         bool
	pauseAfter  spanFlag
	stopAfter   spanFlag
}

func newRun(a *app) *cobra.Command {
	o := &runOptions{app: a, spec: specFlags{env: envFlags{lookup: a.lookup}}}
	cmd := &cobra.Command{
		Use:   "run [OPTIONS] -- COMMAND [ARG...]",
		Short: "run a command in a VM of its own",
		Long: `Run a command in a fresh microVM, which is deleted when the command ends.

Output comes as the command writes it, stdout and stderr apart. With -i the command reads this
program's stdin; with -t it gets a terminal, which implies -i where stdin is a terminal. Ctrl-C stops
the command and deletes the VM; in a terminal it goes to the command. The daemon is started if it
does not run.

The VM has a folder of this host as /workspace, which is deleted with it unless --workspace says
which one it is. What either side writes there the other one sees.

The exit status is the command's own, or 128 and the number of the signal that ended it; 125 means
that AegisVM failed, 126 that the command cannot be executed, 127 that it was not found, 2 that the
command line is wrong.`,
		Example: `  aegis run -- uname -a
  aegis run --memory 2G --cpus 2 -- python3 -c 'print("hello")'
  echo data | aegis run -i -- wc -c
  aegis run -it -- bash
  aegis run --image alpine:3.20 -- cat /etc/os-release
  aegis run --env KEY=value --env HOME --env-file .env --workdir /tmp -- env
  aegis run --workspace . -- make                # the folder that you are in, as /workspace
  aegis run --workspace ./src:ro --mount ./out:/out -- sh -c 'make -C /workspace O=/out'
  aegis run --secret API_KEY -- ./deploy         # see: aegis help secret`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 && o.spec.kit != "" {
				return nil // the kit's
			}
			return commandBehindDash(cmd, args)
		},
		Annotations: map[string]string{programStatus: "true"},
		RunE:        func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.BoolVarP(&o.interactive, "interactive", "i", false, "forward stdin to the command")
	f.BoolVarP(&o.tty, "tty", "t", false, "give the command a terminal")
	o.spec.add(f)
	f.Var(&o.pauseAfter, "pause-after", "pause the VM when nothing has held it awake for `DURATION`; the command does (default never)")
	f.Var(&o.stopAfter, "stop-after", "save the memory and end the VM when it has been paused for `DURATION` (default never)")
	return cmd
}

func (o *runOptions) run(ctx context.Context, command []string) error {
	s, err := newSession(o.app, o.interactive, o.tty)
	if err != nil {
		return err
	}
	req := api.RunRequest{
		Command: command, Env: o.spec.env.merged(), Secrets: o.spec.secrets, Handle: o.spec.name, Workdir: o.spec.workdir, User: o.spec.user,
		ImageRef: o.spec.image, Pull: o.spec.pull.forDaemon(), Kit: o.spec.kit,
		MemoryMB: o.spec.memory.mb, VCPUs: int(o.spec.cpus), DiskMB: o.spec.disk.mb, VMM: o.spec.vmm,
		Capabilities: o.spec.rights.rights,
		Expose:       o.spec.expose.requests(), Egress: o.spec.egress, AllowHosts: o.spec.allow,
		Workspace: o.spec.folders.workspace, WorkspaceReadOnly: o.spec.folders.readOnly, Mounts: o.spec.folders.mounts,
		PauseAfterS: o.pauseAfter.wholeSeconds(), StopAfterS: o.stopAfter.wholeSeconds(),
		Stdin: s.stdin, TTY: s.size(),
	}
	if o.tty {
		req.Env = withTerm(req.Env, o.app.lookup)
	}
	if err := o.app.fetch(ctx, &o.spec); err != nil {
		return err
	}
	attach, err := o.app.start(ctx, req)
	if err != nil {
		return err
	}
	if len(req.Expose) > 0 {
		o.app.sayPorts(ctx, attach.Instance())
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

// sayPorts tells where the ports of an instance are open. One that has ended has none.
func (a *app) sayPorts(ctx context.Context, ref string) {
	info, err := a.client().Info(ctx, ref)
	if err != nil {
		return
	}
	for _, e := range info.Endpoints {
		a.say("port %d is open at %s", e.GuestPort, e.URL())
	}
}

// start runs the request in the daemon, which it starts if none runs.
func (a *app) start(ctx context.Context, req api.RunRequest) (*client.Attach, error) {
	attach, err := a.client().Run(ctx, req)
	if !errors.Is(err, client.ErrNotRunning) {
		return attach, err
	}
	if _, err := a.launch(ctx, func() { a.say("starting aegisd") }); err != nil {
		return nil, err
	}
	return a.client().Run(ctx, req)
}

// withTerm tells the command which terminal it has, unless it was told.
func withTerm(env map[string]string, lookup func(string) (string, bool)) map[string]string {
	if _, ok := env["TERM"]; ok {
		return env
	}
	if term, ok := lookup("TERM"); ok {
		env["TERM"] = term
	}
	return env
}
