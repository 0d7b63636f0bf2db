package mcpserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/spf13/pflag"

	"github.com/xfeldman/aegisvm/internal/buildinfo"
	"github.com/xfeldman/aegisvm/internal/launch"
	"github.com/xfeldman/aegisvm/internal/paths"
)

// The exit statuses of the program.
const (
	statusOK     = 0
	statusFailed = 1
	statusUsage  = 2
)

const usage = `aegis-mcp is AegisVM's MCP server: it speaks the Model Context Protocol over stdin and
stdout, and is started by an LLM client. To register it with Claude Code: aegis mcp install

Usage:
  aegis-mcp [--verbose]

Options:
      --verbose   log each step of the protocol to stderr
      --version   print the version
  -h, --help      print this
`

// Main is the program aegis-mcp. stdout has the protocol, and nothing else.
func Main(args []string) int {
	flags := pflag.NewFlagSet("aegis-mcp", pflag.ContinueOnError)
	flags.Usage = func() {}
	verbose, version := flags.Bool("verbose", false, ""), flags.Bool("version", false, "")
	err := flags.Parse(args)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		_, _ = fmt.Fprint(os.Stdout, usage) // who closed stdout does not want it
		return statusOK
	case err == nil && flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "aegis-mcp: %v\n  hint: see: aegis-mcp --help\n", err)
		return statusUsage
	}
	if *version {
		_, _ = fmt.Fprintf(os.Stdout, "aegis-mcp %s\n", buildinfo.Version()) // as above
		return statusOK
	}
	if err := serve(*verbose); err != nil {
		fmt.Fprintf(os.Stderr, "aegis-mcp: %v\n", err)
		return statusFailed
	}
	return statusOK
}

// serve serves the client at the other end of stdin and stdout, until it closes stdin or
// a signal comes: both are a clean end.
func serve(verbose bool) error {
	home, err := paths.Default()
	if err != nil {
		return err
	}
	level := slog.LevelWarn
	if verbose {
		level = slog.LevelDebug
	}
	daemon := launch.Daemon{Home: home, Environ: os.Environ}
	s := New(Config{
		Client: daemon.Client(),
		Launch: func(ctx context.Context) error {
			_, err := daemon.Ensure(ctx, nil)
			return err
		},
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})),
	})
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	err = s.Run(ctx, &mcp.StdioTransport{})
	if ctx.Err() != nil {
		return nil // asked to end
	}
	return err
}
