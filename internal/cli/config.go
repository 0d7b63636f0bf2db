package cli

import (
	"github.com/spf13/cobra"
)

type configShowOptions struct {
	app  *app
	json bool
}

// setting is one line of `aegis config show --json`.
type setting struct {
	Key    string `json:"key"`
	Value  string `json:"value"`
	Origin string `json:"origin"` // "default", a file and line, or a variable
	Doc    string `json:"doc"`
}

func newConfig(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "config COMMAND",
		Short:   "show settings",
		Long:    `Show the settings in force: the defaults, what config.toml in AEGIS_HOME says, and AEGIS_* variables.`,
		Example: `  aegis config show`,
		Args:    unknownCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newConfigShow(a))
	return cmd
}

func newConfigShow(a *app) *cobra.Command {
	o := &configShowOptions{app: a}
	cmd := &cobra.Command{
		Use:   "show [--json]",
		Short: "show every setting, its value, and where that comes from",
		Long: `Show every setting, its value, and where that comes from: a default, a line of config.toml in
AEGIS_HOME, or a variable, which wins. What is shown is what a daemon would use that is started now;
one that runs has the settings of its own start.`,
		Example: `  aegis config show
  AEGIS_MEMORY=1G aegis config show
  aegis config show --json | jq '.[] | select(.origin != "default")'`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error { return o.run() },
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

func (o *configShowOptions) run() error {
	conf, err := o.app.config()
	if err != nil {
		return err
	}
	list := []setting{}
	rows := [][]string{{"KEY", "VALUE", "ORIGIN"}}
	for _, s := range conf.Settings() {
		list = append(list, setting{s.Key, s.Value, string(s.Origin), s.Doc})
		value := s.Value
		if value == "" {
			value = `""`
		}
		rows = append(rows, []string{s.Key, value, string(s.Origin)})
	}
	if o.json {
		return o.app.printJSON(list)
	}
	return o.app.print("%s", table(rows))
}
