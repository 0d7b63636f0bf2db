package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
)

type instanceStartOptions struct {
	app *app

	spec       specFlags
	pauseAfter spanFlag
	stopAfter  spanFlag
	snapshot   string
	json       bool
	given      []string // options that say what a new instance is
}

func newInstanceStart(a *app) *cobra.Command {
	o := &instanceStartOptions{app: a, spec: specFlags{env: envFlags{lookup: a.lookup}}}
	cmd := &cobra.Command{
		Use:   "start [OPTIONS] -- COMMAND [ARG...]\n  aegis instance start --name X\n  aegis instance start --snapshot S [OPTIONS]",
		Short: "start an instance",
		Long: `Make an instance that runs a command, and return when the command runs. What it writes is in
"aegis logs". The daemon is started if it does not run.

When the command ends, the instance is stopped; it runs the command again when it is needed. While
nothing needs it, it is paused. A connection to a port that is exposed wakes it. A name is made of letters, digits, '.', '_' and '-'; without --name
the id is the name.

With --name and no command, the instance of that name is started again and enabled. A command given
for one that exists must be its own; its options stay as they were, but for --secret, which adds to
those it has.

With --kit the kit says what this command line does not: image, command, and what runs beside the
instance; see "aegis help kit".

With --snapshot there is no command: the program of the snapshot goes on where it was, in an instance
of its own, as with "aegis instance fork". The VM has the shape that it was saved with.

When the start fails, the instance stays, stopped: "aegis instance info" tells why, "aegis instance
delete" removes it. The exit status is 126 if the command cannot be executed, 127 if it was not
found, otherwise 1.`,
		Example: `  aegis instance start --name web --expose 8080:80 -- python3 -m http.server 80
  aegis instance start --name db --image postgres:17 -- docker-entrypoint.sh postgres
  aegis instance start --env PORT=80 --memory 1G --pause-after 5m -- ./serve
  aegis instance start --name dev --workspace ~/src/project -- sleep infinity
  aegis instance start --name bot --secret API_KEY -- ./bot
  aegis instance start --name helper --kit agent
  aegis instance start --name trial --snapshot before-upgrade
  aegis instance start --name web      # again, after it was stopped or disabled`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 && (o.spec.name != "" || o.snapshot != "" || o.spec.kit != "") {
				return nil
			}
			if o.snapshot != "" {
				return usage(cmd, "a start from a snapshot takes no command: its program goes on")
			}
			return commandBehindDash(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			cmd.Flags().Visit(func(f *pflag.Flag) {
				if f.Name != "name" && f.Name != "json" && f.Name != "secret" {
					o.given = append(o.given, dashed(f))
				}
			})
			return o.run(cmd.Context(), args)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	o.spec.add(f)
	f.Var(&o.pauseAfter, "pause-after", "pause the VM when nothing has held it awake for `DURATION` such as 30s or 5m; 0 is never (default 1m)")
	f.Var(&o.stopAfter, "stop-after", "save the memory and end the VM when it has been paused for `DURATION`; 0 is never (default 5m)")
	f.StringVar(&o.snapshot, "snapshot", "", "go on where the `SNAPSHOT` was taken")
	f.BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

func (o *instanceStartOptions) run(ctx context.Context, command []string) error {
	if _, err := o.app.launch(ctx, func() { o.app.say("starting aegisd") }); err != nil {
		return err
	}
	if o.spec.name != "" && o.snapshot == "" {
		if err := o.checkStored(ctx, command); err != nil {
			return err
		}
	}
	if len(command) > 0 || o.spec.kit != "" {
		if err := o.app.fetch(ctx, &o.spec); err != nil {
			return err
		}
	}
	created, again, err := o.app.client().Launch(ctx, api.CreateRequest{
		Snapshot: o.snapshot, Command: command, Env: o.spec.env.merged(), Secrets: o.spec.secrets, Handle: o.spec.name, Workdir: o.spec.workdir, User: o.spec.user,
		ImageRef: o.spec.image, Pull: o.spec.pull.forDaemon(), Kit: o.spec.kit,
		MemoryMB: o.spec.memory.mb, VCPUs: int(o.spec.cpus), DiskMB: o.spec.disk.mb, VMM: o.spec.vmm,
		Capabilities: o.spec.rights.rights,
		Expose:       o.spec.expose.requests(), Egress: o.spec.egress, AllowHosts: o.spec.allow,
		Workspace: o.spec.folders.workspace, WorkspaceReadOnly: o.spec.folders.readOnly, Mounts: o.spec.folders.mounts,
		PauseAfterS: o.pauseAfter.wholeSeconds(), StopAfterS: o.stopAfter.wholeSeconds(),
	})
	if err != nil {
		return err
	}
	if o.json {
		return o.app.printJSON(created)
	}
	verb := "started"
	if again {
		verb = "restarted"
	}
	var text strings.Builder
	fmt.Fprintf(&text, "Instance %s: %s\nHandle: %s\n", verb, created.ID, created.Handle)
	for _, e := range created.Endpoints {
		fmt.Fprintf(&text, "URL: %s\n", e.URL())
	}
	return o.app.print("%s", text.String())
}

// checkStored compares what was asked for with the instance of that name, if there is
// one: it is started as it is, and nobody shall believe otherwise.
func (o *instanceStartOptions) checkStored(ctx context.Context, command []string) error {
	name := o.spec.name
	stored, err := o.app.client().Info(ctx, name)
	switch {
	case fault.KindOf(err) == fault.NotFound && (len(command) > 0 || o.spec.kit != ""):
		return nil
	case fault.KindOf(err) == fault.NotFound:
		return fault.Wrap(fault.NotFound, err, "").
			WithHint("see: aegis instance list; or make it: aegis instance start --name %s -- COMMAND", name)
	case err != nil:
		return err
	case stored.State != api.StateStopped:
		return nil // refused by the daemon
	case len(command) > 0 && !slices.Equal(command, stored.Command):
		return fault.New(fault.Conflict, "%s exists, with another command: %s", name, commandText(stored.Command)).
			WithHint("start it as it is: aegis instance start --name %s; or remove it: aegis instance delete %s", name, name)
	case len(o.given) > 0:
		o.app.say("%s exists, and starts as it was made: %s is not applied", name, strings.Join(o.given, ", "))
	}
	return nil
}
