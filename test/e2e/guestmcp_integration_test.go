//go:build integration

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"

	"github.com/xfeldman/aegisvm/api"
)

// modeller speaks MCP to the server that is on the PATH of every VM: it calls the tools of
// its argument, one after the other, and prints a line with the result of each.
const modeller = `
import json, subprocess, sys
server = subprocess.Popen(['aegis-mcp-guest'], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
def say(message):
    server.stdin.write(json.dumps({'jsonrpc': '2.0', **message}) + '\n')
    server.stdin.flush()
def ask(n, method, params):
    say({'id': n, 'method': method, 'params': params})
    while True:
        answer = json.loads(server.stdout.readline())
        if answer.get('id') == n:
            return answer['result']
ask(0, 'initialize', {'protocolVersion': '2025-06-18', 'capabilities': {}, 'clientInfo': {'name': 'test', 'version': '1'}})
say({'method': 'notifications/initialized'})
for n, (tool, args) in enumerate(json.loads(sys.argv[1]), 1):
    print(json.dumps(ask(n, 'tools/call', {'name': tool, 'arguments': args})), flush=True)
server.stdin.close()
sys.exit(server.wait())
`

// toolCall is a call of a tool in a VM, and where its result goes. One that is refused has
// why instead.
type toolCall struct {
	tool string
	args map[string]any
	out  any
	why  string
}

// tools has a program in an instance call tools.
func (h *host) tools(ref string, calls ...toolCall) {
	h.t.Helper()
	var script [][]any
	for _, c := range calls {
		if c.args == nil {
			c.args = map[string]any{}
		}
		script = append(script, []any{c.tool, c.args})
	}
	text, err := json.Marshal(script)
	if err != nil {
		h.t.Fatal(err)
	}
	results := strings.Split(strings.TrimSpace(h.ok("exec", ref, "--", "python3", "-I", "-c", modeller, string(text))), "\n")
	if len(results) != len(calls) {
		h.t.Fatalf("%d calls have %d results: %q", len(calls), len(results), results)
	}
	for i, c := range calls {
		var r struct {
			IsError bool            `json:"isError"`
			Result  json.RawMessage `json:"structuredContent"`
		}
		if err := json.Unmarshal([]byte(results[i]), &r); err != nil {
			h.t.Fatalf("%s: %v: %s", c.tool, err, results[i])
		}
		if r.IsError != (c.why != "") || !strings.Contains(results[i], c.why) {
			h.t.Fatalf("%s: %s, want %q", c.tool, results[i], c.why)
		}
		if c.out != nil {
			if err := json.Unmarshal(r.Result, c.out); err != nil {
				h.t.Fatalf("%s: %v: %s", c.tool, err, r.Result)
			}
		}
	}
}

// modelled has a model in the parent do with its tools what it may.
func (h *host) modelled() {
	t := h.t
	t.Helper()
	var self api.Self
	var child, port struct{ ID, Handle, State, URL string }
	var lease api.LeaseStatus
	var snap api.Snapshot
	var ran struct {
		Stdout string `json:"stdout"`
		Code   int    `json:"exit_code"`
	}
	var copied struct {
		Role  string
		Self  string
		Forks []struct{ ID, Handle string }
	}
	h.tools("parent",
		toolCall{tool: "self_info", out: &self},
		toolCall{tool: "instance_spawn", args: map[string]any{"handle": "tooled", "command": []string{"sleep", "infinity"}, "workspace": "./sub"}, out: &child},
		toolCall{tool: "instance_spawn", args: map[string]any{"command": []string{"true"}, "workspace": ".."}, why: "workspace"},
		toolCall{tool: "instance_exec", args: map[string]any{"id": "tooled", "command": []string{"sh", "-c", "cat /workspace/page; exit 4"}}, out: &ran},
		toolCall{tool: "instance_delete", args: map[string]any{"id": "tooled"}},
		toolCall{tool: "expose_port", args: map[string]any{"guest_port": 8080}, out: &port},
		toolCall{tool: "expose_port", args: map[string]any{"guest_port": 8081}, why: "max_expose_ports"},
		toolCall{tool: "unexpose_port", args: map[string]any{"guest_port": 8080}},
		toolCall{tool: "keepalive_acquire", args: map[string]any{"ttl_ms": 600_000, "reason": "a model"}, out: &lease},
		toolCall{tool: "snapshot_me", args: map[string]any{"name": "of-a-model"}, out: &snap},
		toolCall{tool: "fork_me", args: map[string]any{"name": "modelled"}, out: &copied},
	)
	info := h.info("parent")
	if self.ID != info.ID || self.Children != 1 {
		t.Errorf("self_info is %+v", self)
	}
	if child.Handle != "tooled" || child.State != api.StateRunning || strings.TrimSpace(ran.Stdout) != "below" || ran.Code != 4 {
		t.Errorf("the child is %+v, its command %+v", child, ran)
	}
	if !strings.HasPrefix(port.URL, "http://") || len(info.Endpoints) != 0 {
		t.Errorf("the port was %+v, open are %+v", port, info.Endpoints)
	}
	if !lease.LeaseHeld || !info.LeaseHeld || info.LeaseReason != "a model" {
		t.Errorf("the lease is %+v, the host's %+v", lease, info.LeaseStatus)
	}
	if list := h.ok("snapshot", "list"); snap.Name != "of-a-model" || !strings.Contains(list, "of-a-model") {
		t.Errorf("the snapshot is %+v of\n%s", snap, list)
	}
	if copied.Role != "parent" || copied.Self != info.ID || len(copied.Forks) != 1 || copied.Forks[0].Handle != "modelled" {
		t.Errorf("the fork is %+v", copied)
	}
	h.unencumbered("modelled")
	h.ok("instance", "delete", "modelled")
	// What a user copies of a child is nobody's.
	h.ok("instance", "fork", "kid", "--name", "nobodys")
	if i := h.info("nobodys"); i.ParentID != "" {
		t.Errorf("a user's fork of a child is a child of %s", i.ParentID)
	}
	h.ok("instance", "delete", "nobodys")
	h.ok("snapshot", "delete", "of-a-model")
	h.tools("parent", toolCall{tool: "keepalive_release"})
}

// unencumbered checks that a fork has neither the children nor the lease of its source.
func (h *host) unencumbered(fork string) {
	h.t.Helper()
	var self api.Self
	h.toldOf(fork, "GET", "/v1/self", "", &self)
	if self.Children != 0 || self.LeaseHeld || self.ParentID != h.info("parent").ID {
		h.t.Errorf("the fork is %+v", self)
	}
	if kid := h.info("kid"); kid.ParentID != self.ParentID {
		h.t.Errorf("the source's child is of %s", kid.ParentID)
	}
}

// shown runs the examples of docs/GUEST_API.md as they stand there.
func (h *host) shown() {
	t := h.t
	t.Helper()
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "GUEST_API.md"))
	if err != nil {
		t.Fatal(err)
	}
	block := func(title, language string) string {
		_, rest, _ := strings.Cut(string(doc), "\n## "+title+"\n")
		_, rest, _ = strings.Cut(rest, "```"+language+" tested=TestGuestAPI\n")
		code, _, found := strings.Cut(rest, "```")
		if !found {
			t.Fatalf("docs/GUEST_API.md has no example under %q", title)
		}
		return code
	}
	out := h.ok("exec", "parent", "--", "sh", "-euc", block("From a shell", "sh"))
	for _, part := range []string{
		`"handle":"parent"`, `"handle":"job-1"`, `"exit_code":0,"done":true`, `"status":"deleted"`, `"lease_held":true`,
		`the capability llm`, // which the parent does not have
	} {
		if !strings.Contains(out, part) {
			t.Errorf("the example says nothing of %s:\n%s", part, out)
		}
	}
	h.toldOf("parent", "DELETE", "/v1/self/keepalive", "", nil)
	if out := h.ok("exec", "parent", "--", "python3", "-uc", block("From Python, without a library", "python")); out != "1\nstatus 3\n" {
		t.Errorf("the example says %q", out)
	}
}
