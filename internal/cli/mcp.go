package cli

import (
	"context"
	"errors"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/paths"
)

// mcpName is what LLM clients know the MCP server by.
const mcpName = "aegis"

func newMCP(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "mcp COMMAND",
		Short: "let LLM clients use AegisVM",
		Long: `Register AegisVM's MCP server, aegis-mcp, with Claude Code: through its tools a model starts instances, runs
commands in them, opens their ports, reads logs and files, forks and snapshots them, and talks to the
agents in them. Other clients take the JSON that "aegis mcp install" prints where Claude Code is missing.`,
		Example: `  aegis mcp install
  aegis mcp uninstall`,
		Args: unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newMCPInstall(a), newMCPUninstall(a))
	return cmd
}

type mcpOptions struct {
	app     *app
	project bool
	user    bool
}

func newMCPInstall(a *app) *cobra.Command {
	o := &mcpOptions{app: a}
	cmd := &cobra.Command{
		Use:   "install [--project|--user]",
		Short: "register the MCP server with Claude Code",
		Long: `Register aegis-mcp with Claude Code, by "claude mcp add", under the name aegis. A registration of that name
is replaced. Where claude is not on the PATH, print the JSON that other clients have in their settings.
The server starts the daemon when it is first used. If AEGIS_HOME is set, the server gets it too.`,
		Example: `  aegis mcp install                    # for you, in all projects
  aegis mcp install --project          # in .mcp.json here, for all who work on this project`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.install(cmd.Context()) },
	}
	o.add(cmd)
	return cmd
}

func newMCPUninstall(a *app) *cobra.Command {
	o := &mcpOptions{app: a}
	cmd := &cobra.Command{
		Use:   "uninstall [--project|--user]",
		Short: "take the MCP server out of Claude Code",
		Long:  `Take what "aegis mcp install" registered out of Claude Code again. It is not an error if there is nothing.`,
		Example: `  aegis mcp uninstall
  aegis mcp uninstall --project`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.uninstall(cmd.Context()) },
	}
	o.add(cmd)
	return cmd
}

func (o *mcpOptions) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.SortFlags = false
	f.BoolVar(&o.project, "project", false, "in the project of the current folder")
	f.BoolVar(&o.user, "user", false, "for you, in all projects (the default)")
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if o.project && o.user {
			return usage(cmd, "--project and --user exclude each other")
		}
		return run(cmd, args)
	}
}

// scope is what claude calls the place of a registration.
func (o *mcpOptions) scope() string {
	if o.project {
		return "project"
	}
	return "user"
}

// mcpServer is an entry in the settings of an MCP client.
type mcpServer struct {
	Command string            `json:"command"`
	Args    []string          `json:"args"`
	Env     map[string]string `json:"env,omitempty"`
}

func (o *mcpOptions) server() (mcpServer, error) {
	program, err := paths.Program("aegis-mcp")
	if err != nil {
		return mcpServer{}, fault.Wrap(fault.Unavailable, err, "the MCP server's program is missing").By(fault.Host).
			WithHint("install AegisVM again, or run make build in its source")
	}
	s := mcpServer{Command: program, Args: []string{}}
	if v, _ := o.app.lookup("AEGIS_HOME"); v != "" {
		s.Env = map[string]string{"AEGIS_HOME": string(o.app.home)} // absolute
	}
	return s, nil
}

func (o *mcpOptions) install(ctx context.Context) error {
	server, err := o.server()
	if err != nil {
		return err
	}
	claude, err := exec.LookPath("claude")
	if err != nil {
		o.app.say("claude is not on the PATH; put this into the settings of your MCP client:")
		return o.app.printJSON(map[string]map[string]mcpServer{"mcpServers": {mcpName: server}})
	}
	// The name comes first: --env takes all words that follow it, up to the next option.
	add := []string{"mcp", "add", mcpName, "--scope", o.scope()}
	for key, value := range server.Env { // one at most
		add = append(add, "--env", key+"="+value)
	}
	add = append(add, "--", server.Command)
	said, err := o.claude(ctx, claude, add...)
	if err != nil && ctx.Err() == nil {
		// There is one already, perhaps of another version.
		if _, gone := o.claude(ctx, claude, "mcp", "remove", mcpName, "--scope", o.scope()); gone == nil {
			said, err = o.claude(ctx, claude, add...)
		}
	}
	if err != nil {
		return refusedByClaude(err, said)
	}
	return o.app.print("MCP server registered: %s\nProgram: %s\nScope: %s\n", mcpName, server.Command, o.scope())
}

func (o *mcpOptions) uninstall(ctx context.Context) error {
	claude, err := exec.LookPath("claude")
	if err != nil {
		o.app.say(`claude is not on the PATH; take "%s" out of mcpServers in the settings of your MCP client`, mcpName)
		return nil //nolint:nilerr // there is nothing to do for us
	}
	said, err := o.claude(ctx, claude, "mcp", "remove", mcpName, "--scope", o.scope())
	if err == nil {
		return o.app.print("MCP server removed: %s\n", mcpName)
	}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		if _, none := o.claude(ctx, claude, "mcp", "get", mcpName); none != nil {
			return o.app.print("MCP server not registered: %s\n", mcpName)
		}
	}
	return refusedByClaude(err, said)
}

// claude runs Claude Code's program and returns what it printed.
func (o *mcpOptions) claude(ctx context.Context, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = o.app.environ()
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func refusedByClaude(err error, said string) error {
	f := fault.Wrap(fault.Unavailable, err, "claude mcp").By(fault.Host).WithHint("see: claude mcp list")
	if said != "" {
		f.Msg += ": " + said
	}
	return f
}
