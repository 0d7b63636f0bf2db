package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xfeldman/aegisvm/api"
)

type instanceForkOptions struct {
	app *app

	name    string
	count   countFlag
	expose  exposeFlags
	secrets secretsFlag
	json    bool
}

func newInstanceFork(a *app) *cobra.Command {
	o := &instanceForkOptions{app: a, count: 1}
	cmd := &cobra.Command{
		Use:   "fork [OPTIONS] X",
		Short: "copy an instance as it is, with its memory",
		Long: `Make copies of an instance as it is now, and return when they run. Their programs go on where the
source's is, each in a VM of its own with a disk of its own; the source stands still for a moment and
goes on. Memory and disk are shared until one of them writes. One that is paused or hibernated can be
forked as it is; of one that is stopped the copies have its disk, and start its program anew.

A copy has a name, a host name, random numbers and ids of its own. The source's open connections and
the commands that "aegis exec" runs in it are not in it. The ports of the source are open on other
numbers of this host, which are printed. Secrets that the source's program holds its copies hold too:
--secret says what later execs and starts get. A workspace of a name or path is shared by all; one
that goes with the source is copied.

With -n N and --name NAME the copies are NAME-1 to NAME-N. Either all are made or none.`,
		Example: `  aegis instance fork web
  aegis instance fork web --name trial
  aegis instance fork agent -n 8 --name try     # try-1 to try-8`,
		Args:              oneRef,
		ValidArgsFunction: a.completeRef,
		RunE:              func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.name, "name", "", "`NAME` of the copy; its id if there is none")
	f.VarP(&o.count, "count", "n", "make `NUMBER` copies")
	o.expose.add(f)
	f.Var(&o.secrets, "secret", "give the stored secret `KEY` to later execs and starts; '*' is all of them (repeat)")
	f.BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

func (o *instanceForkOptions) run(ctx context.Context, ref string) error {
	req := api.ForkRequest{Count: int(o.count), Expose: o.expose.requests(), Secrets: o.secrets}
	switch {
	case o.name != "" && req.Count == 1:
		req.Names = []string{o.name}
	case o.name != "":
		for i := range req.Count {
			req.Names = append(req.Names, fmt.Sprintf("%s-%d", o.name, i+1))
		}
	}
	forks, err := o.app.client().Fork(ctx, ref, req)
	if err != nil {
		return err
	}
	if len(forks) > 0 && forks[0].Cold {
		o.app.say("%s is stopped: its disk was copied, and the program started anew", ref)
	}
	if len(forks) > 0 && forks[0].Workspace == "shared" {
		o.app.say("the workspace of %s is shared: no lock reaches from one VM to the other", ref)
	}
	if o.json {
		return o.app.printJSON(forks)
	}
	var text strings.Builder
	for _, f := range forks {
		fmt.Fprintf(&text, "Instance forked: %s\nHandle: %s\n", f.ID, f.Handle)
		for _, e := range f.Endpoints {
			fmt.Fprintf(&text, "URL: %s\n", e.URL())
		}
	}
	return o.app.print("%s", text.String())
}
