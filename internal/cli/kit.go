package cli

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
	"github.com/xfeldman/aegisvm/internal/kit"
)

func newKit(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "kit COMMAND",
		Short: "see what instances can be made of at a word",
		Long: `A kit says what an instance is made of: image and command, programs that are brought into its VM,
programs of this host that run beside it, and the files that configure all that. "aegis instance start
--kit KIT" makes an instance of one; what other options say wins over it.

A kit is a file NAME.json. They are looked for in the folder kits beside the installation, in
AEGIS_HOME/kits, and where packages keep them; the first of a name counts.`,
		Example: `  aegis kit list
  aegis instance start --name bot --kit agent`,
		Args: unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newKitList(a))
	return cmd
}

type kitListOptions struct {
	app  *app
	json bool
}

func newKitList(a *app) *cobra.Command {
	o := &kitListOptions{app: a}
	cmd := &cobra.Command{
		Use:   "list [--json]",
		Short: "list kits",
		Long: `List the kits that are found. One that lacks a program, or whose file is wrong, is broken, and the reason
stands below the list. Programs are looked for beside aegisd, on its PATH and in the lib folders of packages;
while the daemon does not run, on the PATH of this command.`,
		Example: `  aegis kit list
  aegis kit list --json | jq -r '.[] | select(.status == "broken") | .missing[]'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

func (o *kitListOptions) run(ctx context.Context) error {
	all, err := o.app.client().Kits(ctx)
	if errors.Is(err, client.ErrNotRunning) {
		all, err = kit.NewFinder(o.app.home).All(), nil
	}
	if err != nil {
		return err
	}
	if o.json {
		return o.app.printJSON(all)
	}
	if len(all) == 0 {
		o.app.say("no kits")
		return nil
	}
	if err := o.app.print("%s", kitsText(all)); err != nil {
		return err
	}
	for _, k := range all {
		if len(k.Missing) > 0 {
			o.app.say("%s lacks %s", k.Name, strings.Join(k.Missing, ", "))
		}
	}
	return nil
}

func kitsText(all []api.Kit) string {
	rows := [][]string{{"NAME", "VERSION", "STATUS", "DESCRIPTION"}}
	for _, k := range all {
		version := k.Version
		if version == "" {
			version = "-"
		}
		rows = append(rows, []string{k.Name, oneLine(version), k.Status, oneLine(k.Description)})
	}
	return table(rows)
}

// oneLine keeps what a file says from breaking a table.
func oneLine(s string) string {
	first, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, first)
}
