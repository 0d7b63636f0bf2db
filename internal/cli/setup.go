package cli

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xfeldman/aegisvm/internal/config"
	"github.com/xfeldman/aegisvm/internal/setup"
)

type setupOptions struct{ app *app }

func newSetup(a *app) *cobra.Command {
	o := &setupOptions{app: a}
	return &cobra.Command{
		Use:   "setup",
		Short: "fill AEGIS_HOME with what VMs need",
		Long: `Fill AEGIS_HOME with what VMs need: a kernel and a base image with python3, bash, git
and curl. What the host itself lacks is installed by root or after a question, else named with the
command that installs it.

Cloud Hypervisor, on which VMs run where hardware virtualization works, is fetched where the setting
cloud_hypervisor_sha256 says what its program must be, and QEMU is used where it is not there. AegisVM knows
no digest of it by itself yet.

It may be run again at any time, and does only what is missing. It asks nothing when stdin is not a
terminal, and never starts the daemon.`,
		Example: `  aegis setup
  AEGIS_HOME=/tmp/try aegis setup </dev/null`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
}

func (o *setupOptions) run(ctx context.Context) error {
	conf, err := o.app.config()
	if err != nil {
		return err
	}
	s := setup.Options{
		Home: o.app.home, Out: o.app.err,
		CloudHypervisor:     setup.Release{URL: conf.CloudHypervisorURL, SHA256: conf.CloudHypervisorSHA256},
		NeedCloudHypervisor: conf.VMM == config.VMMCloudHypervisor && conf.CloudHypervisor == "",
	}
	if isTerminal(o.app.in) {
		s.Ask = o.ask
	}
	return setup.Run(ctx, s.Host())
}

// ask puts a question to the person at the terminal. Anything but yes is no.
func (o *setupOptions) ask(question string) bool {
	_, _ = fmt.Fprintf(o.app.err, "%s [y/N] ", question) // see say
	line, err := bufio.NewReader(o.app.in).ReadString('\n')
	if err != nil {
		return false
	}
	answer := strings.ToLower(strings.TrimSpace(line))
	return answer == "y" || answer == "yes"
}
