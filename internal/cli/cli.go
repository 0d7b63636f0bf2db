package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
	"github.com/xfeldman/aegisvm/internal/buildinfo"
	"github.com/xfeldman/aegisvm/internal/config"
	"github.com/xfeldman/aegisvm/internal/doctor"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/launch"
	"github.com/xfeldman/aegisvm/internal/paths"
)

// Host is what the commands ask of the host and cannot ask themselves.
type Host struct {
	// Accelerator tells how machines would run. Nil leaves that out.
	Accelerator func(context.Context, *config.Config) (doctor.Accelerator, error)
	// Bench measures the figures of those names, or all, and tells how it goes. Nil
	// measures nothing.
	Bench func(ctx context.Context, conf *config.Config, only []string, tell func(string)) (api.Bench, error)
}

// app is what commands work in.
type app struct {
	in       *os.File
	out, err *os.File
	lookup   func(string) (string, bool) // the environment
	environ  func() []string
	home     paths.Home
	host     Host
}

// Main runs the command line and returns the exit status.
func Main(args []string, host Host) int {
	a := &app{
		in: os.Stdin, out: os.Stdout, err: os.Stderr,
		lookup: os.LookupEnv, environ: os.Environ, host: host,
	}
	ctx, stop := interruptible(context.Background())
	defer stop()
	root := newRoot(a)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	return a.finish(cmd, err)
}

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "aegis COMMAND",
		Short: "run programs in microVMs of their own",
		Long: `AegisVM gives an AI agent a computer: it runs commands inside microVMs on this host.

A daemon, aegisd, runs the VMs; the commands below talk to it. Everything is kept in
AEGIS_HOME, ~/.aegis by default.`,
		Example: `  aegis setup                          # once: kernel and base image
  aegis run -- uname -a                # a fresh VM, gone when the command ends
  aegis run -it -- bash                # a terminal in one
  aegis doctor                         # what this host has and lacks`,
		Version:           buildinfo.Version(),
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		PersistentPreRunE: func(*cobra.Command, []string) (err error) {
			if a.home, err = paths.Default(); err != nil {
				return fault.Wrap(fault.Invalid, err, "no home").WithHint("set AEGIS_HOME")
			}
			return nil
		},
		Args: unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetVersionTemplate("aegis {{.Version}}\n")
	root.SetFlagErrorFunc(badFlag)
	root.SetHelpCommand(newHelp())
	describe(root)
	root.AddCommand(
		newRun(a), newInstance(a), newExec(a), newShell(a), newLogs(a), newCp(a), newSnapshot(a), newImage(a), newSecret(a), newKit(a), newTether(a),
		newMCP(a), newSetup(a), newDoctor(a),
		newUp(a), newDown(a), newStatus(a), newVersion(a),
		newConfig(a), newBench(a), newCompletion(a),
	)
	return root
}

func (a *app) daemon() launch.Daemon {
	return launch.Daemon{Home: a.home, Environ: a.environ}
}

func (a *app) client() *client.Client { return a.daemon().Client() }

// launch returns the status of the daemon, after starting it if none runs; starting is
// called before that.
func (a *app) launch(ctx context.Context, starting func()) (api.Status, error) {
	return a.daemon().Ensure(ctx, starting)
}

// print writes data. A write that fails is the command's error.
func (a *app) print(format string, args ...any) error {
	if _, err := fmt.Fprintf(a.out, format, args...); err != nil {
		return &client.OutputError{Stream: "stdout", Err: err}
	}
	return nil
}

func (a *app) printJSON(v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return a.print("%s\n", b)
}

// say writes talk. A person who has closed stderr does not listen.
func (a *app) say(format string, args ...any) {
	_, _ = fmt.Fprintf(a.err, "aegis: "+format+"\n", args...)
}

// config returns the settings in force for this user.
func (a *app) config() (*config.Config, error) { return config.Load(a.home, a.environ(), nil) }

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// colour wraps s in a colour where stdout shows it.
func (a *app) colour(code, s string) string {
	if v, _ := a.lookup("NO_COLOR"); v != "" || !isTerminal(a.out) {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}
