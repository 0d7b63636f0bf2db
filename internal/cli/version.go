package cli

import (
	"context"
	"errors"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/xfeldman/aegisvm/client"
	"github.com/xfeldman/aegisvm/internal/buildinfo"
)

type versionOptions struct {
	app  *app
	json bool
}

// versions is what `aegis version --json` prints.
type versions struct {
	Client string `json:"client"`
	Daemon string `json:"daemon,omitempty"` // absent while none runs
	Go     string `json:"go"`
	OS     string `json:"os"`
	Arch   string `json:"arch"`
}

func newVersion(a *app) *cobra.Command {
	o := &versionOptions{app: a}
	cmd := &cobra.Command{
		Use:   "version [--json]",
		Short: "print the versions of aegis and of the daemon",
		Long: `Print the version of this program, and that of the daemon if one runs.

After an upgrade the two differ until the daemon is restarted: aegis down, then aegis up.`,
		Example: `  aegis version
  aegis version --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

func (o *versionOptions) run(ctx context.Context) error {
	v := versions{Client: buildinfo.Version(), Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	s, err := o.app.status(ctx)
	switch {
	case err == nil:
		v.Daemon = s.Version
	case !errors.Is(err, client.ErrNotRunning):
		return err
	}
	if o.json {
		return o.app.printJSON(v)
	}
	if v.Daemon == "" {
		return o.app.print("aegis   %s\naegisd  not running\n", v.Client)
	}
	return o.app.print("aegis   %s\naegisd  %s\n", v.Client, v.Daemon)
}
