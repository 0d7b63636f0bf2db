package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
)

type statusOptions struct {
	app  *app
	json bool
}

func newStatus(a *app) *cobra.Command {
	o := &statusOptions{app: a}
	cmd := &cobra.Command{
		Use:   "status [--json]",
		Short: "tell whether the daemon runs, and on what",
		Long: `Tell whether the daemon runs, which virtual machine monitor it uses, and how well VMs
are isolated from this host.

Isolation is "hardware" where the CPU keeps VMs in (KVM), and "emulated" where it is the
sandboxed, unprivileged process of the emulator. Exit status 3 means that no daemon runs.`,
		Example: `  aegis status
  aegis status --json | jq -r .isolation`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

func (o *statusOptions) run(ctx context.Context) error {
	s, err := o.app.status(ctx)
	if errors.Is(err, client.ErrNotRunning) {
		if o.json {
			err = errors.Join(err, o.app.printJSON(map[string]string{"status": "not running"}))
		}
		return err
	}
	if err != nil {
		return err
	}
	if o.json {
		return o.app.printJSON(s)
	}
	return o.app.print("%sinstances  %d running\n", statusText(s), s.Instances)
}

// status asks the daemon what it is.
func (a *app) status(ctx context.Context) (api.Status, error) { return a.daemon().Status(ctx) }

// statusText is what `up` and `status` tell of a daemon that runs.
func statusText(s api.Status) string {
	router := "off"
	if s.Router != "" {
		router = "http://" + s.Router
	}
	return fmt.Sprintf("aegisd     %s, process %d\nhome       %s\nbackend    %s %s, %s\nisolation  %s\nrouter     %s\n",
		s.Version, s.PID, s.Home, s.Backend, s.VMM, s.Accel, s.Isolation, router)
}
