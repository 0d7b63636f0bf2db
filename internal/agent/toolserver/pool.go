package toolserver

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/xfeldman/aegisvm/internal/agent/blob"
	"github.com/xfeldman/aegisvm/internal/agent/settings"
	"github.com/xfeldman/aegisvm/internal/agent/tool"
)

// maxServers bounds how many servers there are.
const maxServers = 32

// Pool is the servers of an agent. It may be used from many goroutines.
type Pool struct {
	log   *slog.Logger
	dir   string
	blobs *blob.Store

	mu      sync.Mutex
	servers map[string]*server
	closed  bool
}

// New returns a pool without servers, which will run in dir. Pictures that tools return are
// kept in blobs.
func New(log *slog.Logger, dir string, blobs *blob.Store) *Pool {
	return &Pool{log: log, dir: dir, blobs: blobs, servers: map[string]*server{}}
}

// Use makes the pool have these servers: it starts those that are new or changed, and stops
// those that are gone. It does not wait for them.
func (p *Pool) Use(ctx context.Context, conf map[string]settings.MCPServer) {
	p.mu.Lock()
	var gone []*server
	for name, s := range p.servers {
		if now, ok := conf[name]; !ok || !reflect.DeepEqual(now, s.conf) {
			gone = append(gone, s)
			delete(p.servers, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(conf)) {
		if p.closed || len(p.servers) >= maxServers {
			break
		}
		if p.servers[name] == nil {
			p.servers[name] = start(ctx, p.log, name, conf[name], p.dir, p.blobs)
		}
	}
	p.mu.Unlock()
	for _, s := range gone {
		s.stop()
	}
}

// Tools returns the tools of all servers. It waits for servers that are starting until ctx
// ends. Notes say which servers have none, and why.
func (p *Pool) Tools(ctx context.Context) (tools []tool.Tool, notes []string) {
	p.mu.Lock()
	servers := slices.SortedFunc(maps.Values(p.servers), func(a, b *server) int { return strings.Compare(a.name, b.name) })
	p.mu.Unlock()
	for _, s := range servers {
		found, err := s.tools(ctx)
		if err != nil {
			notes = append(notes, fmt.Sprintf("the MCP server %s gives no tools: %v", s.name, err))
		}
		tools = append(tools, found...)
	}
	return tools, notes
}

// Close stops all servers, and waits for them.
func (p *Pool) Close(ctx context.Context) {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.Use(ctx, nil)
}
