//go:build integration

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// model is an LLM client of the program aegis-mcp.
type model struct {
	*host
	session *mcp.ClientSession
}

func newModel(t *testing.T, h *host) *model {
	t.Helper()
	cmd := exec.Command(filepath.Join(h.bin, "aegis-mcp")) // ends with its stdin
	cmd.Env = append(os.Environ(), "AEGIS_HOME="+h.home, "AEGIS_ROUTER=off")
	cmd.Stderr = t.Output()
	c := mcp.NewClient(&mcp.Implementation{Name: "e2e"}, nil)
	session, err := c.Connect(t.Context(), &mcp.CommandTransport{Command: cmd}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := session.Close(); err != nil {
			t.Error(err)
		}
	})
	return &model{h, session}
}

// tool calls a tool that must not fail and decodes its result; what a model reads is
// returned.
func (m *model) tool(name string, args map[string]any, out any) string {
	m.t.Helper()
	res, err := m.session.CallTool(m.t.Context(), &mcp.CallToolParams{Name: name, Arguments: args})
	if err != nil {
		m.t.Fatalf("%s: %v", name, err)
	}
	said := ""
	for _, c := range res.Content {
		if text, ok := c.(*mcp.TextContent); ok {
			said += text.Text //nolint:perfsprint // one, as a rule
		}
	}
	if res.IsError {
		m.t.Fatalf("%s: %s", name, said)
	}
	b, err := json.Marshal(res.StructuredContent)
	if out != nil && errors.Join(err, json.Unmarshal(b, out)) != nil {
		m.t.Fatalf("%s: %s", name, b)
	}
	return said
}

// ran is the result of exec.
type ran struct {
	ExitCode    int    `json:"exit_code"`
	Stdout      string `json:"stdout"`
	StdoutBytes int64  `json:"stdout_bytes"`
	Truncated   bool   `json:"truncated"`
	ExecID      string `json:"exec_id"`
}

func (m *model) sh(script string) (r ran) {
	m.t.Helper()
	m.tool("exec", map[string]any{"name": "box", "command": []string{"sh", "-c", script}}, &r)
	return r
}

// TestMCP: a model does with a VM what the instructions teach it, from a home where no
// daemon runs to a deleted instance.
func TestMCP(t *testing.T) {
	h := newHome(t)
	m := newModel(t, h)
	server := `import http.server, sys; print("listening", flush=True); http.server.test(port=8000, HandlerClass=http.server.SimpleHTTPRequestHandler)`
	said := m.tool("instance_start", map[string]any{
		"name": "box", "command": []string{"python3", "-c", server}, "expose": []string{"8000"}, "workspace": t.TempDir(),
	}, nil)
	if !strings.Contains(said, "http://127.0.0.1:") {
		t.Errorf("start: %q", said)
	}
	m.parallel()
	m.files()
	m.output()
	var port struct{ URL string }
	m.tool("instance_expose", map[string]any{"name": "box", "port": 8000}, &port)
	eventually(t, "the server answers on "+port.URL, func() bool { return strings.Contains(get(t, port.URL), "Directory listing") })
	m.tool("instance_stop", map[string]any{"name": "box", "hibernate": true}, nil)
	if r := m.sh("echo awake"); r.Stdout != "awake\n" { // it wakes
		t.Errorf("after a hibernation: %+v", r)
	}
	if said := m.tool("logs", map[string]any{"name": "box"}, nil); !strings.Contains(said, "listening") {
		t.Errorf("logs: %q", said)
	}
	m.tool("instance_delete", map[string]any{"name": "box"}, nil)
	var left struct{ Instances []any }
	if m.tool("instance_list", nil, &left); len(left.Instances) != 0 {
		t.Errorf("left: %v", left)
	}
}

// parallel: six execs, of which one is called off. Its processes end, those of the others
// do not.
func (m *model) parallel() {
	ctx, cancel := context.WithCancel(m.t.Context())
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := m.session.CallTool(ctx, &mcp.CallToolParams{Name: "exec", Arguments: map[string]any{
			"name": "box", "command": []string{"sh", "-c", "touch /tmp/begun; sleep 7654 & wait"},
		}})
		if !errors.Is(err, context.Canceled) {
			m.t.Errorf("the exec that was called off: %v", err)
		}
	})
	for i := range 5 {
		wg.Go(func() {
			script := fmt.Sprintf("while ! [ -e /tmp/begun ]; do sleep 0.1; done; echo %d; exit %d", i, i)
			if r := m.sh(script); r.ExitCode != i || r.Stdout != fmt.Sprintln(i) {
				m.t.Errorf("exec %d: %+v", i, r)
			}
			if i == 0 {
				cancel() // while the others run
			}
		})
	}
	wg.Wait()
	eventually(m.t, "what was called off has ended", func() bool {
		return m.sh(`grep -lx sleep /proc/[0-9]*/comm 2>/dev/null | wc -l`).Stdout == "0\n"
	})
}

func (m *model) files() {
	m.tool("file_write", map[string]any{"name": "box", "path": "/srv/deep/er/run.sh", "content": "#!/bin/sh\necho ran é\n", "mode": "755"}, nil)
	if r := m.sh("/srv/deep/er/run.sh"); r.Stdout != "ran é\n" {
		m.t.Errorf("a script that was written: %+v", r)
	}
	if said := m.tool("file_read", map[string]any{"name": "box", "path": "/srv/deep/er/run.sh"}, nil); said != "#!/bin/sh\necho ran é\n" {
		m.t.Errorf("read back: %q", said)
	}
	res, err := m.session.CallTool(m.t.Context(), &mcp.CallToolParams{Name: "file_write", Arguments: map[string]any{"name": "box", "path": "/srv/deep", "content": ""}})
	if err != nil || !res.IsError {
		m.t.Errorf("a folder was overwritten: %v, %v", err, res)
	}
	if r := m.sh("readlink /bin && cat /srv/deep/er/run.sh | wc -l"); r.ExitCode != 0 {
		m.t.Errorf("/bin is no link any more, or the folder has gone: %+v", r)
	}
	m.tool("file_write", map[string]any{"name": "box", "path": "/bin/from-mcp", "content": "#!/bin/sh\necho found\n", "mode": "755"}, nil)
	if r := m.sh("from-mcp; readlink /bin"); r.Stdout != "found\nusr/bin\n" {
		m.t.Errorf("a file in a folder that is a link: %+v", r)
	}
}

// output: 100 MB are cut, and the rest is in the log.
func (m *model) output() {
	const lines = 8 << 20
	lineCount := stress(lines/32, lines)
	r := m.sh(fmt.Sprintf("yes 12345678901 | head -n %d; exit 3", lineCount))
	if r.ExitCode != 3 || r.StdoutBytes != int64(12*lineCount) || !r.Truncated || len(r.Stdout) > 64<<10 {
		m.t.Errorf("%d bytes of %d came, cut %v, status %d", len(r.Stdout), r.StdoutBytes, r.Truncated, r.ExitCode)
	}
	if said := m.tool("logs", map[string]any{"name": "box", "exec_id": r.ExecID, "tail": 2}, nil); !strings.Contains(said, "12345678901\n12345678901\n") {
		m.t.Errorf("its log: %q", said)
	}
	var binary struct {
		Base64 string `json:"stdout_base64"`
	}
	if m.tool("exec", map[string]any{"name": "box", "command": []string{"printf", `\000\377`}}, &binary); binary.Base64 != "AP8=" {
		m.t.Errorf("binary: %+v", binary)
	}
}

// get returns what a server answers, or "".
func get(t *testing.T, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return ""
	}
	defer func() { _ = resp.Body.Close() }() // only read
	var b bytes.Buffer
	_, _ = io.Copy(&b, resp.Body) // what is missing is asked for again
	return b.String()
}
