package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xfeldman/aegisvm/internal/doctor"
)

type doctorOptions struct {
	app  *app
	json bool
}

// diagnosis is what `aegis doctor --json` prints.
type diagnosis struct {
	Healthy bool           `json:"healthy"` // VMs can run
	Checks  []doctor.Check `json:"checks"`
}

func newDoctor(a *app) *cobra.Command {
	o := &doctorOptions{app: a}
	cmd := &cobra.Command{
		Use:   "doctor [--json]",
		Short: "check what this host has and lacks, and say what mends it",
		Long: `Check everything that running VMs needs of this host and of AEGIS_HOME. Each check tells
what was found and, where something is wrong, what mends it.

Exit status 1 means that VMs cannot run here; warnings leave it at 0. The daemon need not run.`,
		Example: `  aegis doctor
  aegis doctor --json | jq '.checks[] | select(.status != "ok")'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

func (o *doctorOptions) run(ctx context.Context) error {
	conf, err := o.app.config()
	if err != nil {
		return err
	}
	options := doctor.Options{Home: o.app.home, QEMU: conf.QEMU}
	if o.app.host.Accelerator != nil {
		options.Accel = func(ctx context.Context) (doctor.Accelerator, error) { return o.app.host.Accelerator(ctx, conf) }
	}
	d := diagnosis{Checks: doctor.Run(ctx, options)}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	d.Healthy = doctor.Healthy(d.Checks)
	if err := o.print(d); err != nil {
		return err
	}
	if !d.Healthy {
		return statusError(statusFailed)
	}
	return nil
}

func (o *doctorOptions) print(d diagnosis) error {
	if o.json {
		return o.app.printJSON(d)
	}
	width := 0
	for _, c := range d.Checks {
		width = max(width, len(c.Name))
	}
	colours := map[doctor.Status]string{doctor.OK: "32", doctor.Warn: "33", doctor.Fail: "31"}
	var b strings.Builder
	for _, c := range d.Checks {
		fmt.Fprintf(&b, "%s  %-*s  %s\n", o.app.colour(colours[c.Status], fmt.Sprintf("%-4s", c.Status)), width, c.Name, c.Detail)
		if c.Mend != "" {
			fmt.Fprintf(&b, "%*s  mend: %s\n", len("warn")+2+width, "", c.Mend)
		}
	}
	verdict := "VMs can run here."
	if !d.Healthy {
		verdict = "VMs cannot run here."
	}
	return o.app.print("%s\n%s\n", b.String(), verdict)
}
