package mcpserver

import (
	"context"
	_ "embed"
	"errors"
	"log/slog"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/xfeldman/aegisvm/client"
	"github.com/xfeldman/aegisvm/internal/buildinfo"
)

// instructions is what a model is told before it knows any tool.
//
//go:embed instructions.md
var instructions string

// Config is what a Server works with.
type Config struct {
	Client *client.Client
	// Launch starts the daemon, and returns when it answers. It is called when a call found
	// none, and not twice at a time.
	Launch func(context.Context) error
	Log    *slog.Logger
}

// Server offers AegisVM's tools to a client. It keeps nothing between calls.
type Server struct {
	api  *client.Client
	mcp  *mcp.Server
	log  *slog.Logger
	turn chan struct{} // holds a token: whoever takes it may launch
	conf Config
}

// New returns a server. It does no I/O.
func New(conf Config) *Server {
	s := &Server{api: conf.Client, log: conf.Log, turn: make(chan struct{}, 1), conf: conf}
	s.turn <- struct{}{}
	s.mcp = mcp.NewServer(
		&mcp.Implementation{Name: "aegis", Title: "AegisVM", Version: buildinfo.Version()},
		&mcp.ServerOptions{
			Instructions: instructions, Logger: conf.Log,
			Capabilities: &mcp.ServerCapabilities{Tools: &mcp.ToolCapabilities{}}, // the list does not change
		},
	)
	s.addInstances()
	s.addChanges()
	s.addPorts()
	s.addExec()
	s.addLogs()
	s.addFiles()
	s.addCopies()
	s.addSecrets()
	s.addImages()
	s.addKits()
	s.addTether()
	return s
}

// Run serves one client until it goes, which is no error, or ctx ends. It returns when
// all calls have ended.
func (s *Server) Run(ctx context.Context, t mcp.Transport) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	session, err := s.mcp.Connect(ctx, t, nil)
	if err != nil {
		return err
	}
	gone := make(chan error, 1)
	go func() { gone <- session.Wait() }()
	select {
	case err = <-gone:
		return err
	case <-ctx.Done():
		err = session.Close() // waits for the calls, which end with ctx
		<-gone
		return errors.Join(err, context.Cause(ctx))
	}
}

// ensure starts the daemon. Of several calls at a time one does so.
func (s *Server) ensure(ctx context.Context) error {
	select {
	case <-s.turn:
		defer func() { s.turn <- struct{}{} }()
		return s.conf.Launch(ctx)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
