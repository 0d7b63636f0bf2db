//go:build integration

package e2e

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/api"
)

// asker asks the Guest API, with nothing but sockets: it prints the status, a line, and
// the body.
const asker = `
import os, socket, sys
method, path, body = sys.argv[1:4]
at = os.environ['AEGIS_GUEST_API'].removeprefix('http://').split(':')
s = socket.create_connection((at[0], int(at[1])), 60)
s.sendall(f'{method} {path} HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n{body}'.encode())
answer = b''
while True:
    b = s.recv(65536)
    if not b: break
    answer += b
head, _, body = answer.partition(b'\r\n\r\n')
print(head.split()[1].decode())
print(body.decode())
`

// server is a web server in the workspace, which says that it is there.
const server = `import http.server, os
os.chdir('/workspace')
print('serving', os.environ['AEGIS_INSTANCE_ID'], flush=True)
http.server.ThreadingHTTPServer(('', 80), http.server.SimpleHTTPRequestHandler).serve_forever()
`

// askOf has a program in an instance ask the Guest API.
func (h *host) askOf(ref, method, path, body string) (status int, answer string) {
	h.t.Helper()
	out := h.ok("exec", ref, "--", "python3", "-I", "-c", asker, method, path, body)
	first, rest, _ := strings.Cut(out, "\n")
	status, err := strconv.Atoi(first)
	if err != nil {
		h.t.Fatalf("%s %s in %s: %q", method, path, ref, out)
	}
	return status, rest
}

// toldOf is askOf for a request that succeeds.
func (h *host) toldOf(ref, method, path, body string, out any) {
	h.t.Helper()
	status, answer := h.askOf(ref, method, path, body)
	if status/100 != 2 {
		h.t.Fatalf("%s %s in %s: %d %s", method, path, ref, status, answer)
	}
	if out != nil {
		if err := json.Unmarshal([]byte(answer), out); err != nil {
			h.t.Fatalf("%s %s in %s: %v: %s", method, path, ref, err, answer)
		}
	}
}

// TestGuestAPI has an instance start others, and keep itself awake, over all that happens
// to it.
func TestGuestAPI(t *testing.T) {
	h := newHost(t)
	ws := t.TempDir()
	if err := os.MkdirAll(ws+"/sub", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ws+"/sub/page", []byte("below"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc", ws+"/etc"); err != nil {
		t.Fatal(err)
	}
	rights := filepath.Join(t.TempDir(), "rights.json")
	if err := os.WriteFile(rights, []byte(`{"spawn":true,"spawn_depth":1,"max_children":3,"max_expose_ports":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	h.ok("instance", "start", "--name", "parent", "--workspace", ws, "--capabilities", rights, "--pause-after", "1s", "--stop-after", "0", "--", "sleep", "infinity")
	h.child(ws)
	h.modelled()
	h.shown()
	h.leased()
	h.askedAgain()
	h.forkedSelf()

	// A VMM that dies ends its own instance only.
	if err := syscall.Kill(h.machines()[h.info("parent").ID], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the parent is stopped", func() bool { return h.info("parent").State == api.StateStopped })
	if i := h.info("kid"); i.State != api.StateRunning && i.State != api.StatePaused {
		t.Errorf("the child of a parent that crashed is %s", i.State)
	}
	h.ok("instance", "disable", "parent")
	if left := h.machines(); len(left) > 0 {
		t.Errorf("VMs of a disabled family: %v", left)
	}
	if i := h.info("kid"); i.Enabled {
		t.Error("a child of a disabled parent is enabled")
	}
	h.ok("instance", "start", "--name", "parent")
	h.toldOf("parent", "POST", "/v1/instances", `{"command":["sleep","infinity"],"wait":true}`, nil)
	h.ok("instance", "delete", "parent")
	if list := h.ok("instance", "list", "--json"); strings.TrimSpace(list) != "[]" {
		t.Errorf("left are %s", list)
	}
	if left := h.machines(); len(left) > 0 {
		t.Errorf("VMs of a deleted family: %v", left)
	}
}

// child starts a child in a folder of the workspace, with a port.
func (h *host) child(ws string) {
	t := h.t
	t.Helper()
	for _, where := range []string{"/", "..", "./etc", ws} {
		body, _ := json.Marshal(api.SpawnRequest{Command: []string{"true"}, Workspace: where})
		if status, answer := h.askOf("parent", "POST", "/v1/instances", string(body)); status != http.StatusForbidden {
			t.Errorf("workspace %s: %d %s", where, status, answer)
		}
	}
	body, err := json.Marshal(api.SpawnRequest{
		Handle: "kid", Command: []string{"python3", "-u", "-c", server}, Workspace: "./sub", Exposes: []api.GuestExpose{{GuestPort: 80}}, Wait: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	var kid api.Child
	h.toldOf("parent", "POST", "/v1/instances", string(body), &kid)
	if self := h.info("parent"); kid.ParentID != self.ID || len(kid.Endpoints) != 1 {
		t.Fatalf("child %+v of %s", kid, self.ID)
	}
	if status, page := h.get(kid.Endpoints[0].URL + "/page"); status != http.StatusOK || string(page) != "below" {
		t.Errorf("the child's port: %d %q", status, page)
	}
	status, lines := h.askOf("parent", "POST", "/v1/instances/kid/exec", `{"command":["cat","/workspace/page"]}`)
	if status != http.StatusOK || !strings.Contains(lines, `"line":"below"`) || !strings.Contains(lines, `"exit_code":0`) {
		t.Errorf("exec in the child: %d %s", status, lines)
	}
	if status, lines := h.askOf("parent", "GET", "/v1/instances/kid/logs", ""); status != http.StatusOK || !strings.Contains(lines, "serving "+kid.ID) {
		t.Errorf("logs of the child: %d %s", status, lines)
	}
	if tree := h.ok("instance", "tree"); !strings.Contains(tree, "└── kid") {
		t.Errorf("tree:\n%s", tree)
	}
}

// leased keeps the parent awake over its idle time.
func (h *host) leased() {
	t := h.t
	t.Helper()
	h.toldOf("parent", "POST", "/v1/self/keepalive", `{"ttl_ms":600000,"reason":"a test"}`, nil)
	time.Sleep(4 * time.Second) // more than once what would pause it
	if i := h.info("parent"); i.State != api.StateRunning || !i.LeaseHeld || i.LeaseReason != "a test" {
		t.Errorf("with a lease: %s, %+v", i.State, i.LeaseStatus)
	}
	h.toldOf("parent", "DELETE", "/v1/self/keepalive", "", nil)
	eventually(t, "it is paused without a lease", func() bool { return h.info("parent").State == api.StatePaused })
}

// askedAgain asks after a pause, a save, and the death of the daemon.
func (h *host) askedAgain() {
	t := h.t
	t.Helper()
	var self api.Self
	for _, happens := range []struct {
		what string
		do   func()
	}{
		{"pause", func() { h.ok("instance", "pause", "parent") }},
		{"save", func() { h.hibernate("parent") }},
		{"death of the daemon", func() { h.signal(syscall.SIGKILL); h.up() }},
	} {
		happens.do()
		h.toldOf("parent", "GET", "/v1/self", "", &self)
		if self.Handle != "parent" || self.Children != 1 {
			t.Errorf("after the %s: %+v", happens.what, self)
		}
	}
}

// forkedSelf has the parent copy itself. The one who asks may be cut off by that.
func (h *host) forkedSelf() {
	t := h.t
	t.Helper()
	r := h.try("exec", "parent", "--", "python3", "-I", "-c", asker, "POST", "/v1/self/fork", `{"names":["twin"]}`)
	eventually(t, "there is a fork", func() bool { return h.try("instance", "info", "twin").status == 0 })
	var twin api.Self
	h.toldOf("twin", "GET", "/v1/self", "", &twin)
	if twin.ParentID != h.info("parent").ID || twin.Capabilities.Spawn {
		t.Errorf("the fork is %+v", twin)
	}
	if status, answer := h.askOf("twin", "POST", "/v1/instances", `{"command":["true"]}`); status != http.StatusForbidden {
		t.Errorf("a child of the fork: %d %s", status, answer)
	}
	t.Logf("fork: status %d, %s%s", r.status, r.stdout, r.stderr)
}
