package mcpguest

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"go.uber.org/goleak"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// session connects a client to a server whose host is h.
func session(t *testing.T, h http.HandlerFunc) *mcp.ClientSession {
	t.Helper()
	host := httptest.NewServer(h)
	t.Cleanup(host.Close)
	near, far := mcp.NewInMemoryTransports()
	s, err := New(host.URL).Connect(t.Context(), far, nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, nil).Connect(t.Context(), near, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Close()
		_ = s.Wait()
	})
	return c
}

// call calls a tool. What it returns, or its error, comes as text.
func call(t *testing.T, c *mcp.ClientSession, name string, args any) (text string, failed bool) {
	t.Helper()
	res, err := c.CallTool(t.Context(), &mcp.CallToolParams{Name: name, Arguments: args})
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if len(res.Content) != 1 {
		t.Errorf("%s: %d parts", name, len(res.Content))
	}
	if p, ok := res.Content[0].(*mcp.TextContent); ok {
		text = p.Text
	}
	if !res.IsError && res.StructuredContent == nil {
		t.Errorf("%s: no structured result", name)
	}
	return text, res.IsError
}

// TestTools holds the tools, their parameters and results to what is known of them.
func TestTools(t *testing.T) {
	c := session(t, http.NotFound)
	list, err := c.ListTools(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.MarshalIndent(list.Tools, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	path := filepath.Join("testdata", "tools.golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the tools are others; see the diff after: go test ./internal/mcpguest -update\n%s", got)
	}
}

func TestRequests(t *testing.T) {
	var last string
	c := session(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		last = strings.TrimSpace(r.Method + " " + r.URL.String() + " " + string(b))
		switch {
		case strings.HasSuffix(r.URL.Path, "/exec"):
			_, _ = io.WriteString(w, `{"exec_id":"exec-1","started_at":"2026-01-01T00:00:00Z"}
{"stream":"stdout","line":"out"}
{"stream":"stderr","line":"err","open":true}
{"exec_id":"exec-1","exit_code":7,"done":true}
`)
		case strings.HasSuffix(r.URL.Path, "/logs"):
			_, _ = io.WriteString(w, `{"source":"server","line":"one"}
{"source":"system","line":"two"}
`)
		case r.Method == http.MethodGet && r.URL.Path == "/v1/instances":
			_, _ = io.WriteString(w, `[{"id":"inst-1","handle":"kid","state":"running"}]`)
		default:
			_, _ = io.WriteString(w, `{"id":"inst-1"}`)
		}
	})
	for _, x := range []struct {
		tool string
		args string
		want string // the request
		out  string // in the result
	}{
		{"self_info", `{}`, "GET /v1/self", "inst-1"},
		{
			"instance_spawn", `{"command":["sh"],"exposes":[{"guest_port":80}],"workspace":"./a"}`,
			`POST /v1/instances {"command":["sh"],"exposes":[{"guest_port":80}],"workspace":"./a","wait":true}`, "inst-1",
		},
		{"instance_list", `{}`, "GET /v1/instances", "kid"},
		{"instance_stop", `{"id":"../self"}`, "POST /v1/instances/..%2Fself/stop", "stopped"},
		{"instance_delete", `{"id":"kid"}`, "DELETE /v1/instances/kid", "deleted"},
		{"instance_exec", `{"id":"kid","command":["x"]}`, `POST /v1/instances/kid/exec {"command":["x"]}`, `{"exit_code":7,"stderr":"err","stdout":"out\n"}`},
		{"instance_logs", `{"id":"kid","tail":5}`, "GET /v1/instances/kid/logs?tail=5", `["one","[system] two"]`},
		{"expose_port", `{"guest_port":80,"protocol":"tcp"}`, `POST /v1/self/expose {"guest_port":80,"protocol":"tcp"}`, "url"},
		{"unexpose_port", `{"guest_port":80}`, "DELETE /v1/self/expose/80", "closed"},
		{"keepalive_acquire", `{"ttl_ms":5000,"reason":"build"}`, `POST /v1/self/keepalive {"ttl_ms":5000,"reason":"build"}`, "lease_held"},
		{"keepalive_release", `{}`, "DELETE /v1/self/keepalive", "released"},
		{"snapshot_me", `{"name":"s"}`, `POST /v1/self/snapshot {"name":"s"}`, "inst-1"},
	} {
		text, failed := call(t, c, x.tool, json.RawMessage(x.args))
		if failed || last != x.want || !strings.Contains(text, x.out) {
			t.Errorf("%s: %q, failed %v; asked %q, want %q", x.tool, text, failed, last, x.want)
		}
	}
}

func TestRefusals(t *testing.T) {
	c := session(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `{"error":{"message":"this instance may not start others","code":"denied","hint":"the capability spawn decides"}}`)
	})
	text, failed := call(t, c, "instance_spawn", map[string]any{"command": []string{"x"}})
	for _, want := range []string{"may not start", "denied", "capability spawn"} {
		if !failed || !strings.Contains(text, want) {
			t.Errorf("a refusal reads %q", text)
		}
	}
}

// cut breaks the connection of a request.
func cut(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		_ = conn.Close()
	}
}

// TestForkMe: the one that is copied and the copy may both lose the answer.
func TestForkMe(t *testing.T) {
	for _, x := range []struct{ name, self, want string }{
		{"parent", "inst-1", `{"forks":[{"command":[],"endpoints":[],"handle":"","id":"inst-3","state":""}],"role":"parent","self":"inst-1"}`},
		{"fork", "inst-3", `{"forks":[],"role":"fork","self":"inst-3"}`},
	} {
		var forked atomic.Bool
		c := session(t, func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path == "/v1/self/fork":
				forked.Store(true)
				cut(w)
			case r.URL.Path == "/v1/self" && forked.Load():
				_, _ = fmt.Fprintf(w, `{"id":%q}`, x.self)
			case r.URL.Path == "/v1/self":
				_, _ = io.WriteString(w, `{"id":"inst-1"}`)
			case forked.Load():
				_, _ = io.WriteString(w, `[{"id":"inst-2"},{"id":"inst-3"}]`)
			default:
				_, _ = io.WriteString(w, `[{"id":"inst-2"}]`)
			}
		})
		if text, failed := call(t, c, "fork_me", map[string]any{}); failed || !strings.Contains(text, x.want) {
			t.Errorf("%s: %s", x.name, text)
		}
	}
}

// A question is asked again when the VM has slept over it; what changes something is not.
func TestBrokenConnections(t *testing.T) {
	var asked atomic.Int32
	c := session(t, func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) < attempts || r.Method != http.MethodGet {
			cut(w)
			return
		}
		_, _ = io.WriteString(w, `{"id":"inst-1"}`)
	})
	if text, failed := call(t, c, "self_info", map[string]any{}); failed || asked.Load() != attempts {
		t.Errorf("%s after %d", text, asked.Load())
	}
	asked.Store(0)
	if text, failed := call(t, c, "instance_stop", map[string]any{"id": "kid"}); !failed || asked.Load() != 1 || !strings.Contains(text, "sleeps") {
		t.Errorf("%s after %d", text, asked.Load())
	}
}

func TestServeEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Serve(ctx, func(string) string { return "" }); err != nil {
		t.Error(err)
	}
}
