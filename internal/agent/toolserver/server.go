package toolserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/xfeldman/aegisvm/internal/agent/blob"
	"github.com/xfeldman/aegisvm/internal/agent/process"
	"github.com/xfeldman/aegisvm/internal/agent/settings"
	"github.com/xfeldman/aegisvm/internal/agent/tool"
	"github.com/xfeldman/aegisvm/internal/buildinfo"
	"github.com/xfeldman/aegisvm/internal/logattr"
)

// The times of servers.
const (
	// startTimeout bounds a start: some servers are downloaded by it.
	startTimeout = 2 * time.Minute
	// endTimeout is what a server has to end by itself.
	endTimeout = 2 * time.Second
	// The pauses between starts of one that dies.
	firstPause = time.Second
	maxPause   = time.Minute
)

// server is one program. Its goroutine keeps it running.
type server struct {
	log   *slog.Logger
	name  string
	conf  settings.MCPServer
	dir   string
	blobs *blob.Store

	cancel context.CancelFunc
	done   chan struct{}
	wanted chan struct{} // somebody asks for tools; holds one

	mu      sync.Mutex
	session *mcp.ClientSession // nil while it does not run
	list    []tool.Tool
	err     error         // why it does not run
	settled chan struct{} // closed once it runs or has failed; replaced when it starts
}

func start(ctx context.Context, log *slog.Logger, name string, conf settings.MCPServer, dir string, blobs *blob.Store) *server {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // it outlives whoever wants it first
	s := &server{
		log: log, name: name, conf: conf, dir: dir, blobs: blobs, cancel: cancel,
		done: make(chan struct{}), wanted: make(chan struct{}, 1), settled: make(chan struct{}),
	}
	go func() {
		defer close(s.done)
		s.keep(ctx)
	}()
	return s
}

func (s *server) stop() {
	s.cancel()
	<-s.done
}

// keep runs the server, and runs it again when it has died and somebody wants it.
func (s *server) keep(ctx context.Context) {
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		began := time.Now()
		err := s.live(ctx)
		if ctx.Err() != nil {
			s.settle(nil, nil, errors.New("it is being stopped"))
			return
		}
		s.log.WarnContext(ctx, "an MCP server ended", logattr.Part(s.name), logattr.Err(err))
		if time.Since(began) > maxPause {
			pause = firstPause
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		select {
		case <-s.wanted:
			s.unsettle()
		case <-ctx.Done():
			return
		}
	}
}

// live is one life of the program: it returns why it ended.
func (s *server) live(ctx context.Context) error {
	cmd := process.Command(ctx, "mcp/"+s.name, append([]string{s.conf.Command}, s.conf.Args...)...)
	cmd.Dir = s.dir
	for k, v := range s.conf.Env {
		cmd.Env = append(cmd.Env, k+"="+os.Expand(v, os.Getenv))
	}
	defer func() {
		if cmd.Process != nil {
			_ = process.KillGroup(cmd) // what it leaves is of no use to anybody
		}
	}()
	starting, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	client := mcp.NewClient(&mcp.Implementation{Name: "aegis-agent", Version: buildinfo.Version()}, &mcp.ClientOptions{Capabilities: &mcp.ClientCapabilities{}})
	session, err := client.Connect(starting, &mcp.CommandTransport{Command: cmd, TerminateDuration: endTimeout}, nil)
	if err != nil {
		err = fmt.Errorf("start %s: %w", s.conf.Command, err)
		s.settle(nil, nil, err)
		return err
	}
	list, err := s.read(starting, session)
	if err == nil {
		s.settle(session, list, nil)
		err = s.wait(ctx, session)
	}
	s.settle(nil, nil, err)
	return errors.Join(err, session.Close())
}

// wait returns when the program has ended, or ctx has.
func (s *server) wait(ctx context.Context, session *mcp.ClientSession) error {
	ended := make(chan error, 1)
	go func() { ended <- session.Wait() }()
	select {
	case err := <-ended:
		return fmt.Errorf("it has ended: %w", errors.Join(err, errEnded))
	case <-ctx.Done():
		_ = session.Close() // Wait returns then
		return errors.Join(ctx.Err(), <-ended)
	}
}

var errEnded = errors.New("the program is gone")

func (s *server) settle(session *mcp.ClientSession, list []tool.Tool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.session, s.list, s.err = session, list, err
	select {
	case <-s.settled:
	default:
		close(s.settled)
	}
}

func (s *server) unsettle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settled = make(chan struct{})
}

// tools returns the tools of the server, when it runs.
func (s *server) tools(ctx context.Context) ([]tool.Tool, error) {
	if _, err := s.running(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.list, s.err
}

// running returns the session of the server, waiting for one that starts.
func (s *server) running(ctx context.Context) (*mcp.ClientSession, error) {
	s.mu.Lock()
	settled := s.settled
	if s.session == nil {
		select {
		case s.wanted <- struct{}{}:
		default:
		}
	}
	s.mu.Unlock()
	select {
	case <-settled:
	case <-ctx.Done():
		return nil, errors.New("it is still starting")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.session == nil {
		return nil, s.err
	}
	return s.session, nil
}
