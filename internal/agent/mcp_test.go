package agent

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/xfeldman/aegisvm/internal/agent/modeltest"
)

// mcpServer is this test's program as an MCP server. One of its tools ends it.
func mcpServer() {
	s := mcp.NewServer(&mcp.Implementation{Name: "test"}, nil)
	type args struct {
		Text string `json:"text"`
	}
	mcp.AddTool(s, &mcp.Tool{Name: "echo", Description: "say it again"}, func(_ context.Context, _ *mcp.CallToolRequest, a args) (*mcp.CallToolResult, any, error) {
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: "echo " + a.Text}}}, nil, nil
	})
	mcp.AddTool(s, &mcp.Tool{Name: "die", Description: "end"}, func(context.Context, *mcp.CallToolRequest, args) (*mcp.CallToolResult, any, error) {
		os.Exit(3)
		return nil, nil, nil
	})
	_ = s.Run(context.Background(), &mcp.StdioTransport{})
}

// TestToolsOfServers: an MCP server's tools are used, its death is a result, and it is
// there again later. One that does not start is no trouble.
func TestToolsOfServers(t *testing.T) {
	w := newWorld(t, func(r modeltest.Request) modeltest.Step {
		last := r.Last().Text
		if tool, ok := strings.CutPrefix(last, "use "); ok {
			return modeltest.Step{Calls: []modeltest.Call{{ID: "a", Name: tool, Args: `{"text":"hello"}`}}}
		}
		return modeltest.Step{Text: last}
	})
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	w.configure(map[string]any{"model": "openai/gpt", "base_url": w.model.URL + "/v1", "mcp": map[string]any{
		"test":   map[string]any{"command": self, "env": map[string]string{"AEGIS_TEST_MCP": "1"}},
		"broken": map[string]any{"command": filepath.Join(w.workspace, "no-such-program")},
	}})
	w.start()
	if got := w.host.answer(w.host.say("use test_echo")); got.Text != "echo hello" {
		t.Errorf("answer: %+v", got)
	}
	if system := w.model.Requests()[0].System; !strings.Contains(system, "the MCP server broken gives no tools") {
		t.Errorf("the model is not told of the broken server: %s", system)
	}
	if got := w.host.answer(w.host.say("use test_die")); !strings.Contains(got.Text, "Error: the MCP server test") {
		t.Errorf("answer: %+v", got)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		if got := w.host.answer(w.host.say("use test_echo")); got.Text == "echo hello" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the server is not started again")
		}
	}
}

// both serves the Guest API, and models of the host through it.
func both(h *host, m *modeltest.Server) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST /v1/llm/chat", m.Config.Handler)
	mux.HandleFunc("/", h.serve)
	return mux
}
