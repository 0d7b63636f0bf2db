package mcpguest

import (
	"context"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/xfeldman/aegisvm/internal/buildinfo"
)

// instructions tell a model what the tools are for.
const instructions = `You run in a microVM of AegisVM. These tools ask its host: about this VM, for other VMs
(instances, children of this one), for ports of this VM to be opened on the host, and to be kept awake.
A VM that nothing holds awake is paused, with all its programs, and goes on when it is needed: take a
keepalive lease for work that uses little CPU and network. What is allowed stands in self_info, under
capabilities; a refusal says why.`

// Serve answers on stdin and stdout until the client goes or ctx ends. getenv is os.Getenv.
func Serve(ctx context.Context, getenv func(string) string) error {
	err := New(getenv("AEGIS_GUEST_API")).Run(ctx, &mcp.StdioTransport{})
	if ctx.Err() != nil {
		return nil //nolint:nilerr // it was asked to end
	}
	return err
}

// New returns the server of the Guest API at base; "" is where that is in every VM.
func New(base string) *mcp.Server {
	s := mcp.NewServer(&mcp.Implementation{Name: "aegis-guest", Version: buildinfo.Version()}, &mcp.ServerOptions{Instructions: instructions})
	t := &tools{newCaller(base)}
	t.self(s)
	t.children(s)
	return s
}

// tools are what the tools do.
type tools struct{ host *caller }

// add adds a tool. Its result is structured, and the same as text.
func add[In, Out any](s *mcp.Server, name, description string, hints *mcp.ToolAnnotations, do func(context.Context, In) (Out, error)) {
	mcp.AddTool(s, &mcp.Tool{Name: name, Description: description, Annotations: hints},
		func(ctx context.Context, _ *mcp.CallToolRequest, in In) (*mcp.CallToolResult, Out, error) {
			out, err := do(ctx, in)
			return nil, out, err
		})
}

func reads() *mcp.ToolAnnotations { return &mcp.ToolAnnotations{ReadOnlyHint: true} }

func changes(destroys, again bool) *mcp.ToolAnnotations {
	return &mcp.ToolAnnotations{DestructiveHint: &destroys, IdempotentHint: again}
}
