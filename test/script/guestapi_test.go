package script

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
	"github.com/xfeldman/aegisvm/internal/config"
	"github.com/xfeldman/aegisvm/internal/daemon"
	"github.com/xfeldman/aegisvm/internal/paths"
)

// host is a daemon in this process, with guests that are goroutines.
type host struct {
	*client.Client

	t    *testing.T
	home paths.Home
	log  *lockedBuffer
}

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newHost(t *testing.T, environ ...string) *host {
	t.Helper()
	dir, err := os.MkdirTemp("", "aegis-guest") //nolint:usetesting // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	h := &host{t: t, home: paths.Home(dir), log: &lockedBuffer{}}
	conf, err := config.Load(h.home, append(environ, "AEGIS_ROUTER=off"), nil)
	if err != nil {
		t.Fatal(err)
	}
	lock, err := daemon.Lock(h.home)
	if err != nil {
		t.Fatal(err)
	}
	ready := make(chan struct{})
	o := daemon.Options{Config: conf, Log: slog.New(slog.NewTextHandler(h.log, nil)), Ready: func() { close(ready) }}
	fakeWorld(&o)
	ctx, cancel := context.WithCancel(context.Background()) // it ends by request
	ended := make(chan error, 1)
	go func() { ended <- daemon.Run(ctx, o) }()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	h.Client = client.New(h.home.Socket())
	t.Cleanup(func() {
		err := h.Shutdown(context.Background(), true, func(api.Event) {})
		if err := errors.Join(err, <-ended); err != nil {
			t.Errorf("the daemon: %v", err)
		}
		cancel()
		_ = lock.Release()
		if t.Failed() {
			t.Log(h.log)
		}
	})
	return h
}

// start starts an instance that sleeps.
func (h *host) start(req api.CreateRequest) *guestOf {
	h.t.Helper()
	req.Command = []string{"sleep", "1000"}
	v, _, err := h.Launch(h.t.Context(), req)
	if err != nil {
		h.t.Fatal(err)
	}
	return h.guest(v.ID)
}

// guestOf is what a program in a guest sees of the host.
type guestOf struct {
	h  *host
	id string
	at string
}

func (h *host) guest(id string) *guestOf {
	h.t.Helper()
	at, ok := guestAPIs.Load(id)
	if !ok {
		h.t.Fatalf("%s has no guest", id)
	}
	return &guestOf{h, id, "http://" + at.(string)}
}

var guestClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// do makes a request. body is text of JSON, or what becomes that.
func (g *guestOf) do(method, path string, body any) (int, string) {
	g.h.t.Helper()
	text, ok := body.(string)
	if body != nil && !ok {
		b, err := json.Marshal(body)
		if err != nil {
			g.h.t.Fatal(err)
		}
		text = string(b)
	}
	req, err := http.NewRequestWithContext(g.h.t.Context(), method, g.at+path, strings.NewReader(text))
	if err != nil {
		g.h.t.Fatal(err)
	}
	res, err := guestClient.Do(req)
	if err != nil {
		g.h.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		g.h.t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// must makes a request that succeeds.
func (g *guestOf) must(method, path string, body, out any) {
	g.h.t.Helper()
	status, text := g.do(method, path, body)
	if status/100 != 2 {
		g.h.t.Fatalf("%s %s: %d %s", method, path, status, text)
	}
	if out != nil {
		if err := json.Unmarshal([]byte(text), out); err != nil {
			g.h.t.Fatalf("%s %s: %v in %s", method, path, err, text)
		}
	}
}

// spawn starts a child that sleeps.
func (g *guestOf) spawn(req api.SpawnRequest) *guestOf {
	g.h.t.Helper()
	req.Command, req.Wait = []string{"sleep", "1000"}, true
	var c api.Child
	g.must("POST", "/v1/instances", req, &c)
	if c.ParentID != g.id {
		g.h.t.Fatalf("a child of %s has the parent %q", g.id, c.ParentID)
	}
	return g.h.guest(c.ID)
}

func (h *host) ids() []string {
	h.t.Helper()
	all, err := h.List(h.t.Context(), "")
	if err != nil {
		h.t.Fatal(err)
	}
	var ids []string
	for _, i := range all {
		ids = append(ids, i.ID)
	}
	slices.Sort(ids)
	return ids
}

// TestEscalation has a guest ask for what it must not get. Each is refused with its reason,
// which the daemon's log has too, and makes nothing.
func TestEscalation(t *testing.T) {
	h := newHost(t)
	base := t.TempDir()
	ws, foreign := base+"/ws", base+"/ws-other"
	for _, dir := range []string{ws + "/sub", foreign + "/sub"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"etc": "/etc", "up": "..", "sibling": "../ws-other", "root": "/", "loop": "loop"} {
		if err := os.Symlink(to, filepath.Join(ws, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"MINE", "LOCKED", "FOREIGN"} {
		if _, err := h.SetSecret(t.Context(), name, "value-of-"+name); err != nil {
			t.Fatal(err)
		}
	}
	g := h.start(api.CreateRequest{
		Handle: "parent", Workspace: ws, Secrets: []string{"MINE", "LOCKED"}, MemoryMB: 256, VCPUs: 1,
		Capabilities: &api.Capabilities{
			Spawn: true, SpawnDepth: 2, MaxChildren: 2, MaxExposePorts: 1, LLM: []string{"ollama"},
			AllowedSecrets: []string{"MINE", "FOREIGN"}, AllowedImages: []string{"allowed"}, AllowedWorkspaces: []string{"data"},
		},
	})
	other := h.start(api.CreateRequest{Handle: "other", Workspace: foreign, Expose: []api.ExposeRequest{{Port: 80}}})
	powerless := h.start(api.CreateRequest{Handle: "powerless"})
	othersPort := 0
	if info, err := h.Info(t.Context(), "other"); err != nil {
		t.Fatal(err)
	} else {
		othersPort = info.Endpoints[0].PublicPort
	}
	before := h.ids()
	cmd := []string{"sleep", "1"}
	child := func(change func(*api.SpawnRequest)) api.SpawnRequest {
		r := api.SpawnRequest{Command: cmd}
		change(&r)
		return r
	}
	workspace := func(w string) api.SpawnRequest { return child(func(r *api.SpawnRequest) { r.Workspace = w }) }
	for _, c := range []struct {
		name         string
		of           *guestOf
		method, path string
		body         any
		status       int
		why          string
	}{
		{"workspace /", g, "POST", "/v1/instances", workspace("/"), 403, "workspace"},
		{"workspace /etc", g, "POST", "/v1/instances", workspace("/etc"), 403, "workspace"},
		{"workspace ..", g, "POST", "/v1/instances", workspace(".."), 403, "workspace"},
		{"workspace ../..", g, "POST", "/v1/instances", workspace("../.."), 403, "workspace"},
		{"workspace below and out", g, "POST", "/v1/instances", workspace("sub/../../ws-other"), 403, "workspace"},
		{"workspace out of the target", g, "POST", "/v1/instances", workspace("/workspace/../etc"), 403, "workspace"},
		{"workspace beside the target", g, "POST", "/v1/instances", workspace("/workspace-other"), 403, "workspace"},
		{"the host's path of its own", g, "POST", "/v1/instances", workspace(ws), 403, "workspace"},
		{"common prefix", g, "POST", "/v1/instances", workspace("../ws-other"), 403, "workspace"},
		{"another's path", g, "POST", "/v1/instances", workspace(foreign), 403, "workspace"},
		{"link to /etc", g, "POST", "/v1/instances", workspace("./etc"), 403, "link"},
		{"link to /", g, "POST", "/v1/instances", workspace("/workspace/root"), 403, "link"},
		{"link up", g, "POST", "/v1/instances", workspace("./up"), 403, "link"},
		{"link to a sibling", g, "POST", "/v1/instances", workspace("./sibling/sub"), 403, "link"},
		{"link to itself", g, "POST", "/v1/instances", workspace("./loop"), 403, "link"},
		{"a folder that is not there", g, "POST", "/v1/instances", workspace("./none"), 404, "none"},
		{"a named workspace", g, "POST", "/v1/instances", workspace("data-other"), 403, "allowed_workspaces"},
		{"another's folder by id", g, "POST", "/v1/instances", workspace(other.id), 403, "allowed_workspaces"},
		{"a NUL", g, "POST", "/v1/instances", workspace("sub\x00/x"), 400, "bad"},

		{"foreign secret", g, "POST", "/v1/instances", child(func(r *api.SpawnRequest) { r.Secrets = []string{"FOREIGN"} }), 403, "FOREIGN"},
		{"secret not to be handed on", g, "POST", "/v1/instances", child(func(r *api.SpawnRequest) { r.Secrets = []string{"LOCKED"} }), 403, "allowed_secrets"},
		{"all secrets", g, "POST", "/v1/instances", child(func(r *api.SpawnRequest) { r.Secrets = []string{"*"} }), 403, "allowed_secrets"},
		{"memory", g, "POST", "/v1/instances", child(func(r *api.SpawnRequest) { r.MemoryMB = 257 }), 403, "max_memory_mb"},
		{"negative memory", g, "POST", "/v1/instances", child(func(r *api.SpawnRequest) { r.MemoryMB = -1 }), 400, "-1"},
		{"memory that overflows", g, "POST", "/v1/instances", `{"command":["x"],"memory_mb":17592186044416}`, 400, "MB"},
		{"vCPUs", g, "POST", "/v1/instances", child(func(r *api.SpawnRequest) { r.VCPUs = 2 }), 403, "max_vcpus"},
		{"ports", g, "POST", "/v1/instances", `{"command":["x"],"exposes":[80,81]}`, 403, "max_expose_ports"},
		{"image", g, "POST", "/v1/instances", child(func(r *api.SpawnRequest) { r.ImageRef = "allowed-other" }), 403, "allowed_images"},
		{"depth", g, "POST", "/v1/instances", child(func(r *api.SpawnRequest) { r.Capabilities = &api.Capabilities{Spawn: true, SpawnDepth: 2} }), 403, "spawn_depth"},
		{"children of a child", g, "POST", "/v1/instances", child(func(r *api.SpawnRequest) {
			r.Capabilities = &api.Capabilities{Spawn: true, SpawnDepth: 1, MaxChildren: 3}
		}), 403, "max_children"},
		{"models of a child", g, "POST", "/v1/instances", child(func(r *api.SpawnRequest) { r.Capabilities = &api.Capabilities{LLM: []string{"*"}} }), 403, "llm"},
		{"forged parent", g, "POST", "/v1/instances", `{"command":["x"],"parent_id":"` + other.id + `"}`, 400, "parent_id"},
		{"egress", g, "POST", "/v1/instances", `{"command":["x"],"egress":"all"}`, 400, "egress"},
		{"mounts", g, "POST", "/v1/instances", `{"command":["x"],"mounts":[{"source":"/","target":"/host"}]}`, 400, "mounts"},
		{"a name that is taken", g, "POST", "/v1/instances", child(func(r *api.SpawnRequest) { r.Handle = "other" }), 409, "taken"},

		{"another's stop", g, "POST", "/v1/instances/" + other.id + "/stop", nil, 404, "no child"},
		{"another's delete by name", g, "DELETE", "/v1/instances/other", nil, 404, "no child"},
		{"another's exec", g, "POST", "/v1/instances/other/exec", `{"command":["true"]}`, 404, "no child"},
		{"another's logs", g, "GET", "/v1/instances/other/logs", nil, 404, "no child"},
		{"another's fork", g, "POST", "/v1/instances/other/fork", nil, 404, "no child"},
		{"itself as a child", g, "DELETE", "/v1/instances/" + g.id, nil, 404, "no child"},
		{"an id that is a path", g, "GET", "/v1/instances/..%2f..%2fself", nil, 404, "no child"},

		{"a privileged port", g, "POST", "/v1/self/expose", `{"guest_port":80,"public_port":80}`, 403, "not for guests"},
		{"the port of a model server", g, "POST", "/v1/self/expose", `{"guest_port":80,"public_port":11434}`, 403, "reserved"},
		{"another's port", g, "POST", "/v1/self/expose", map[string]int{"guest_port": 80, "public_port": othersPort}, 409, "taken"},
		{"a port beyond loopback", g, "POST", "/v1/self/expose", `{"guest_port":80,"bind":"0.0.0.0"}`, 400, "bind"},
		{"a port of the host's", other, "DELETE", "/v1/self/expose/80", nil, 403, "opened on the host"},
		{"another model server", g, "POST", "/v1/llm/chat", `{"model":"host:vllm/x"}`, 403, "vllm"},
		{"a model server that is none", g, "POST", "/v1/llm/chat", `{"provider":"http://169.254.169.254","model":"x"}`, 404, "no model server"},
		{"a lease for ever", g, "POST", "/v1/self/keepalive", `{"ttl_ms":9223372036854775807}`, 400, "ttl_ms"},

		{"spawn without a right", powerless, "POST", "/v1/instances", child(func(*api.SpawnRequest) {}), 403, "spawn"},
		{"fork without a right", powerless, "POST", "/v1/self/fork", nil, 403, "spawn"},
		{"snapshot without a right", powerless, "POST", "/v1/self/snapshot", nil, 403, "spawn"},
		{"port without a right", powerless, "POST", "/v1/self/expose", `{"guest_port":80}`, 403, "max_expose_ports"},
		{"model without a right", powerless, "POST", "/v1/llm/chat", `{"model":"host:ollama/x"}`, 403, "llm"},

		{"the host's API", g, "PUT", "/v1/secrets/X", `{"value":"x"}`, 404, "not part"},
		{"another method", g, "PUT", "/v1/self", nil, 405, "PUT"},
		{"no JSON", g, "POST", "/v1/instances", "{", 400, "request"},
		{"a large body", g, "POST", "/v1/instances", strings.Repeat(" ", 2<<20), 413, "large"},
	} {
		status, text := c.of.do(c.method, c.path, c.body)
		var body api.GuestError
		if err := json.Unmarshal([]byte(text), &body); err != nil {
			t.Errorf("%s: %d %q: %v", c.name, status, text, err)
			continue
		}
		e := body.Error
		if status != c.status || e.Code == "" || !strings.Contains(e.Message+e.Hint, c.why) {
			t.Errorf("%s: %d %+v, want %d and %q", c.name, status, e, c.status, c.why)
		}
		for _, hidden := range []string{base, string(h.home), other.id, "value-of"} {
			if said := c.path + text; strings.Contains(e.Message+e.Hint, hidden) && !strings.Contains(said[:len(c.path)], hidden) && !asked(c.body, hidden) {
				t.Errorf("%s: the answer has %q: %s", c.name, hidden, text)
			}
		}
	}
	if after := h.ids(); !slices.Equal(after, before) {
		t.Errorf("there are %v, were %v", after, before)
	}
	if n := strings.Count(h.log.String(), "guest refused"); n < 15 {
		t.Errorf("%d refusals are logged", n)
	}
	if !strings.Contains(h.log.String(), "/etc") {
		t.Error("the log does not say what was refused")
	}
}

// asked reports whether a request had a text in it itself.
func asked(body any, text string) bool {
	b, _ := json.Marshal(body)
	return strings.Contains(string(b), text)
}

// TestBudget: two spawns at once do not exceed what is allowed, nor do ports.
func TestBudget(t *testing.T) {
	h := newHost(t)
	g := h.start(api.CreateRequest{Handle: "parent", Capabilities: &api.Capabilities{Spawn: true, SpawnDepth: 2, MaxChildren: 2, MaxExposePorts: 3}})
	var made, denied, ports atomic.Int32
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			switch status, text := g.do("POST", "/v1/instances", api.SpawnRequest{Command: []string{"sleep", "1000"}}); status {
			case 201:
				made.Add(1)
			case 403:
				denied.Add(1)
			default:
				t.Errorf("%d %s", status, text)
			}
		})
		wg.Go(func() {
			if status, _ := g.do("POST", "/v1/self/expose", api.GuestExpose{GuestPort: 80 + i}); status == 200 {
				ports.Add(1)
			}
		})
	}
	wg.Wait()
	if made.Load() != 2 || denied.Load() != 4 || ports.Load() != 3 {
		t.Errorf("%d children made, %d denied; %d ports", made.Load(), denied.Load(), ports.Load())
	}
	var self api.Self
	g.must("GET", "/v1/self", nil, &self)
	if self.Children != 2 || len(self.Endpoints) != 3 {
		t.Errorf("self is %+v", self)
	}
}

// TestGenerations: rights shrink from parent to child, and all end with the first.
func TestGenerations(t *testing.T) {
	h := newHost(t)
	g := h.start(api.CreateRequest{Handle: "first", MemoryMB: 256, Capabilities: &api.Capabilities{Spawn: true, SpawnDepth: 2, MaxChildren: 2, MaxExposePorts: 1}})
	// The automatic workspace of the first, which its child shares a folder of.
	info, err := h.Info(t.Context(), "first")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(info.WorkspaceDir+"/a/b", 0o755); err != nil {
		t.Fatal(err)
	}
	child := g.spawn(api.SpawnRequest{Handle: "second", Workspace: "./a", Exposes: []api.GuestExpose{{GuestPort: 80}}})
	grandchild := child.spawn(api.SpawnRequest{Handle: "third", Workspace: "/workspace/b", MemoryMB: 128})
	info, err = h.Info(t.Context(), "third")
	if err != nil || !strings.HasSuffix(info.WorkspaceDir, "/workspace/a/b") || info.ParentID != child.id || info.MemoryMB != 128 {
		t.Errorf("third is %+v, %v", info, err)
	}
	if status, text := grandchild.do("POST", "/v1/instances", `{"command":["x"]}`); status != 403 {
		t.Errorf("a fourth generation: %d %s", status, text)
	}
	if status, text := child.do("POST", "/v1/instances", `{"command":["x"],"workspace":"../b"}`); status != 403 {
		t.Errorf("a folder beside its own: %d %s", status, text)
	}
	if status, text := g.do("GET", "/v1/instances/third", nil); status != 404 {
		t.Errorf("a grandchild: %d %s", status, text)
	}
	// A command in it, and its log.
	status, text := g.do("POST", "/v1/instances/second/exec", `{"command":["echo","hello"]}`)
	if status != 200 || !strings.Contains(text, `"line":"hello"`) || !strings.Contains(text, `"exit_code":0,"done":true`) {
		t.Errorf("exec: %d %s", status, text)
	}
	if status, text := g.do("GET", "/v1/instances/second/logs?execs=true", nil); status != 200 || !strings.Contains(text, "hello") {
		t.Errorf("logs: %d %s", status, text)
	}
	var all []api.Child
	if g.must("GET", "/v1/instances", nil, &all); len(all) != 1 || all[0].Handle != "second" || len(all[0].Endpoints) != 1 || all[0].Endpoints[0].URL == "" {
		t.Errorf("children %+v", all)
	}
	if _, err := h.Delete(t.Context(), "first"); err != nil {
		t.Fatal(err)
	}
	if ids := h.ids(); len(ids) > 0 {
		t.Errorf("left are %v", ids)
	}
	if left, _ := filepath.Glob(string(h.home) + "/data/instances/*"); len(left) > 0 {
		t.Errorf("left are %v", left)
	}
}

// TestKeepalive: a lease is shown to the host.
func TestKeepalive(t *testing.T) {
	h := newHost(t)
	g := h.start(api.CreateRequest{Handle: "web"})
	g.must("POST", "/v1/self/keepalive", api.KeepaliveRequest{TTLMS: 60_000, Reason: "build"}, nil)
	info, err := h.Info(t.Context(), "web")
	if err != nil || !info.LeaseHeld || info.LeaseReason != "build" || info.LeaseExpiresAt == nil || len(info.Holds) != 1 {
		t.Errorf("info %+v, %v", info, err)
	}
	g.must("DELETE", "/v1/self/keepalive", nil, nil)
	if info, err = h.Info(t.Context(), "web"); err != nil || info.LeaseHeld || len(info.Holds) != 0 {
		t.Errorf("info %+v, %v", info, err)
	}
	g.must("POST", "/v1/self/restart", nil, nil)
}

// TestFlood: 10,000 requests a second are refused, mostly, and cost the host little: others
// are served as before, and the log does not grow with them.
func TestFlood(t *testing.T) {
	h := newHost(t)
	g, other := h.start(api.CreateRequest{Handle: "flood"}), h.start(api.CreateRequest{Handle: "calm"})
	size := len(h.log.String())
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	var asked, refused atomic.Int32
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			for ctx.Err() == nil && asked.Load() < 10_000 {
				conn, err := net.Dial("tcp", strings.TrimPrefix(g.at, "http://"))
				if err != nil {
					return
				}
				stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
				in := bufio.NewReader(conn)
				for range 100 {
					asked.Add(1)
					if _, err := io.WriteString(conn, "GET /v1/self HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
						break
					}
					res, err := http.ReadResponse(in, nil)
					if err != nil {
						break
					}
					_, _ = io.Copy(io.Discard, res.Body)
					_ = res.Body.Close()
					if res.StatusCode == http.StatusTooManyRequests {
						refused.Add(1)
					}
				}
				stop()
				_ = conn.Close()
			}
		})
	}
	for range 5 { // meanwhile
		other.must("GET", "/v1/self", nil, nil)
	}
	wg.Wait()
	if refused.Load() == 0 {
		t.Errorf("none of %d requests was refused", asked.Load())
	}
	if grown := len(h.log.String()) - size; grown > 64<<10 {
		t.Errorf("%d requests made the log grow by %d bytes", asked.Load(), grown)
	}
	other.must("GET", "/v1/self", nil, nil)
	if _, err := h.Status(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestChat: a model server of the host's answers a guest that may ask it, as it speaks.
func TestChat(t *testing.T) {
	more := make(chan struct{})
	var asked map[string]any
	models := http.NewServeMux()
	models.HandleFunc("POST /v1/chat/completions", func(w http.ResponseWriter, r *http.Request) {
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: one\n\n")
		_ = http.NewResponseController(w).Flush()
		<-more
		_, _ = io.WriteString(w, "data: two\n\n")
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: models, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(ln) }()
	defer func() { _ = server.Close() }()
	h := newHost(t, "AEGIS_LLM_OLLAMA=http://"+ln.Addr().String(), "AEGIS_LLM_VLLM=http://127.0.0.1:1")
	g := h.start(api.CreateRequest{Handle: "agent", Capabilities: &api.Capabilities{LLM: []string{"ollama", "vllm"}}})
	for _, body := range []string{
		`{"model":"host:ollama/llama3.2:1b","stream":true,"messages":[]}`,
		`{"model":"llama3.2:1b","provider":"ollama","stream":true,"messages":[]}`,
	} {
		res, err := guestClient.Post(g.at+"/v1/llm/chat", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		first := make([]byte, len("data: one\n\n"))
		if _, err := io.ReadFull(res.Body, first); err != nil || string(first) != "data: one\n\n" { // before the rest is there
			t.Fatalf("%q, %v", first, err)
		}
		if info, err := h.Info(t.Context(), "agent"); err != nil || len(info.Holds) != 1 {
			t.Errorf("while a model speaks: %+v, %v", info.Holds, err)
		}
		more <- struct{}{}
		rest, err := io.ReadAll(res.Body)
		if err != nil || string(rest) != "data: two\n\n" || res.Header.Get("Content-Type") != "text/event-stream" {
			t.Errorf("%q, %v", rest, err)
		}
		_ = res.Body.Close()
		if asked["model"] != "llama3.2:1b" || asked["provider"] != nil {
			t.Errorf("the server was asked %v", asked)
		}
	}
	if status, text := g.do("POST", "/v1/llm/chat", `{"model":"vllm/x"}`); status != 503 || strings.Contains(text, "127.0.0.1") {
		t.Errorf("a server that is not there: %d %s", status, text)
	}
}
