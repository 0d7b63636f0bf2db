package cli

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
)

type benchOptions struct {
	app  *app
	json bool
	only []string
}

func newBench(a *app) *cobra.Command {
	o := &benchOptions{app: a}
	cmd := &cobra.Command{
		Use:   "bench [--json] [--only NAME]...",
		Short: "measure this host: figures beside their floors",
		Long: `Measure how fast AegisVM is on this host. Each figure stands beside its floor: the same
with less of AegisVM, such as the VMM alone, measured in the same run. Samples of the two take turns,
so that their ratio means something on a busy host too; figures themselves want an idle one.

It starts a daemon of its own, in a home below AEGIS_HOME with the same settings, kernel and base
image, and leaves nothing behind. Instances that run are not touched, but are measured along with the
rest of the host. It takes a few minutes.

Figures that end in _9p are the workspace beside a folder that QEMU itself shares with a machine of that
size. They need a kernel with 9p: the host's own, or one that is fetched from the package archive once
and kept in AEGIS_HOME/kernel-9p. Where it cannot be had, they are left out.

Of MB/s more is better, of everything else less. p99 is what 99 of 100 samples come to at worst.`,
		Example: `  aegis bench
  aegis bench --only run_true --only wake_disk
  aegis bench --json | jq '.results[] | {name, ratio: (.median / .floor.median)}'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	cmd.Flags().StringArrayVar(&o.only, "only", nil, "measure only the figure of that `NAME`; may be given again")
	return cmd
}

func (o *benchOptions) run(ctx context.Context) error {
	if o.app.host.Bench == nil {
		return fault.New(fault.Unavailable, "this build measures nothing").WithHint("install AegisVM again")
	}
	conf, err := o.app.config()
	if err != nil {
		return err
	}
	report, err := o.app.host.Bench(ctx, conf, o.only, func(text string) { o.app.say("%s", text) })
	if err != nil {
		return err
	}
	if o.json {
		return o.app.printJSON(report)
	}
	return o.app.print("%s", benchText(report))
}

// benchText lays out a report for people.
func benchText(b api.Bench) string {
	rows := [][]string{{"FIGURE", "MEDIAN", "P99", "N", "FLOOR", "", "RATIO"}}
	for _, r := range b.Results {
		rows = append(rows, []string{
			r.Name, quantity(r.Median, r.Unit), quantity(r.P99, r.Unit), strconv.Itoa(r.N),
			quantity(r.Floor.Median, r.Unit), r.Floor.Name, fmt.Sprintf("%.2f", r.Ratio()),
		})
	}
	return facts([][2]string{
		{"host", b.Host}, {"kernel", b.Kernel}, {"driver", b.Driver + ", " + b.Accel}, {"aegis", b.Version},
	}) + "\n" + table(rows)
}

// quantity is a figure to the precision that it has.
func quantity(v float64, unit string) string {
	digits := 1
	if v < 10 {
		digits = 2
	}
	return fmt.Sprintf("%.*f %s", digits, v, unit)
}
