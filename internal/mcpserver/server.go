package mcpserver

import (
	"context"
	_ "embed"
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

// Run serves one client until it goes, which is no error, or ctx ends. Calls that are
// under way end with either, and Run returns when they have.
func (s *Server) Run(ctx context.Context, t mcp.Transport) error {
	session, err := s.mcp.Connect(ctx, until{t, ctx}, nil)
	if err != nil {
		return err
	}
	err = session.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// until is a transport whose connection ends with a context. To the session that is a
// client that has gone, and calls off what it asked for; Close of a session would wait.
type until struct {
	mcp.Transport
	ctx context.Context //nolint:containedctx // of the connection, not of the call that makes it
}

// Connect implements mcp.Transport.
func (u until) Connect(ctx context.Context) (mcp.Connection, error) {
	c, err := u.Transport.Connect(ctx)
	if err == nil {
		context.AfterFunc(u.ctx, func() { _ = c.Close() }) //nolint:contextcheck // see until; nobody is left to be told
	}
	return c, err
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
