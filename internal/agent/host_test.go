package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/agent/modeltest"
)

func TestMain(m *testing.M) {
	if os.Getenv("AEGIS_TEST_MCP") != "" {
		mcpServer()
		return
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(status int) {
		if built != "" {
			_ = os.RemoveAll(built)
		}
		os.Exit(status)
	}))
}

// built is the folder of the program that tests have built, if they have.
var built string

// patience is how long tests wait for what has to come. It decides nothing where all is well.
const patience = 20 * time.Second

// host is the daemon's side: the Guest API, and a sender of frames that tries until they
// are taken.
type host struct {
	t *testing.T
	*httptest.Server

	drop func(path string) bool // breaks a connection, before or after the call was heard

	mu      sync.Mutex
	frames  []api.Frame
	ids     map[string]bool
	leases  int // held now
	leased  int // ever
	restart int
	changed chan struct{}
	agent   string // where the agent listens
	seq     int64
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{t: t, ids: map[string]bool{}, changed: make(chan struct{})}
	h.Server = httptest.NewServer(http.HandlerFunc(h.serve))
	t.Cleanup(h.Close)
	return h
}

func (h *host) serve(w http.ResponseWriter, r *http.Request) {
	if h.drop != nil && h.drop(r.URL.Path) {
		panic(http.ErrAbortHandler)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	defer func() {
		close(h.changed)
		h.changed = make(chan struct{})
	}()
	switch r.Method + " " + r.URL.Path {
	case "POST /v1/tether/send":
		var f api.Frame
		if err := json.NewDecoder(r.Body).Decode(&f); err != nil || f.MsgID == "" || f.Seq != 0 || f.V != 1 {
			h.t.Errorf("the agent sends %+v, %v", f, err)
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		delta := f.Type == api.FrameDelta || f.Type == api.FrameReasoningDelta
		if delta || !h.ids[f.MsgID] {
			h.frames = append(h.frames, f)
		}
		h.ids[f.MsgID] = true
	case "POST /v1/self/keepalive":
		h.leases = 1
		h.leased++
	case "DELETE /v1/self/keepalive":
		h.leases = 0
	case "GET /v1/self":
		_, _ = w.Write([]byte(`{"id":"inst-1","handle":"me"}`))
		return
	case "POST /v1/self/restart":
		h.restart++
	default:
		w.WriteHeader(http.StatusNotFound)
		return
	}
	_, _ = w.Write([]byte(`{}`))
}

// until waits until ok holds of what the host has heard.
func (h *host) until(what string, ok func() bool) {
	h.t.Helper()
	deadline := time.After(patience)
	for {
		h.mu.Lock()
		good, changed := ok(), h.changed
		h.mu.Unlock()
		if good {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			h.t.Fatalf("waited in vain for %s; heard %s", what, h.heard())
		}
	}
}

func (h *host) heard() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var b strings.Builder
	for _, f := range h.frames {
		fmt.Fprintf(&b, "\n%s %s %s", f.Type, f.Session.ID, f.Payload)
	}
	return b.String()
}

// deliver posts a frame until the agent takes it.
func (h *host) deliver(f api.Frame) {
	h.t.Helper()
	body, err := json.Marshal(f)
	if err != nil {
		h.t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		h.mu.Lock()
		agent := h.agent
		h.mu.Unlock()
		resp, err := http.Post("http://"+agent+"/v1/tether/recv", "application/json", bytes.NewReader(body))
		if err != nil {
			continue
		}
		_ = resp.Body.Close()
		if resp.StatusCode/100 == 2 {
			return
		}
	}
	h.t.Fatalf("the agent does not take %s", f.MsgID)
}

func (h *host) frame(kind api.FrameType, session string, payload any) api.Frame {
	h.t.Helper()
	raw, err := json.Marshal(payload)
	if err != nil {
		h.t.Fatal(err)
	}
	h.seq++
	return api.Frame{V: 1, Type: kind, TS: time.Now(), Session: api.Session{Channel: "host", ID: session}, MsgID: fmt.Sprintf("m%d", h.seq), Seq: h.seq, Payload: raw}
}

// say sends a user's message, and returns its id.
func (h *host) say(text string, images ...api.Picture) string {
	h.t.Helper()
	f := h.frame(api.FrameUserMessage, "default", api.UserMessage{Text: text, Images: images})
	h.deliver(f)
	return f.MsgID
}

// answer waits for the answer to a message.
func (h *host) answer(id string) api.AssistantMessage {
	h.t.Helper()
	var m api.AssistantMessage
	h.until("the answer to "+id, func() bool {
		for _, f := range h.frames {
			m = api.AssistantMessage{}
			if f.Type == api.FrameDone && json.Unmarshal(f.Payload, &m) == nil && m.ReplyTo == id {
				return true
			}
		}
		return false
	})
	return m
}

// told returns what was told of a message by deltas.
func (h *host) told(id string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var b strings.Builder
	for _, f := range h.frames {
		var d api.Delta
		if f.Type == api.FrameDelta && json.Unmarshal(f.Payload, &d) == nil && d.ReplyTo == id {
			b.WriteString(d.Text)
		}
	}
	return b.String()
}

func (h *host) count(kind api.FrameType) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, f := range h.frames {
		if f.Type == kind {
			n++
		}
	}
	return n
}

// world is an agent in the test's process, with its host and its model.
type world struct {
	t         *testing.T
	host      *host
	model     *modeltest.Server
	workspace string
	env       map[string]string
	stop      func()
}

func newWorld(t *testing.T, script func(modeltest.Request) modeltest.Step) *world {
	t.Helper()
	w := &world{t: t, host: newHost(t), model: modeltest.New(t, script), workspace: t.TempDir(), env: map[string]string{"OPENAI_API_KEY": modeltest.Key}}
	w.configure(map[string]any{"model": "openai/gpt", "base_url": w.model.URL + "/v1"})
	return w
}

func (w *world) configure(settings map[string]any) {
	w.t.Helper()
	data, err := json.Marshal(settings)
	if err != nil {
		w.t.Fatal(err)
	}
	w.write(".aegis/agent.json", string(data))
}

func (w *world) write(name, data string) {
	w.t.Helper()
	path := filepath.Join(w.workspace, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// start starts the agent; it ends with the test, or with stop.
func (w *world) start() *world {
	w.t.Helper()
	log := slog.New(slog.NewTextHandler(w.t.Output(), nil))
	a, err := New(Config{Log: log, Workspace: w.workspace, GuestAPI: w.host.URL, Getenv: func(k string) string { return w.env[k] }})
	if err != nil {
		w.t.Fatal(err)
	}
	listener, err := (&net.ListenConfig{}).Listen(w.t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	w.host.mu.Lock()
	w.host.agent = listener.Addr().String()
	w.host.mu.Unlock()
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	done := make(chan error, 1)
	go func() { done <- a.serve(ctx, listener) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				w.t.Errorf("the agent ended: %v", err)
			}
		case <-time.After(patience):
			w.t.Error("the agent does not end")
		}
		http.DefaultClient.CloseIdleConnections()
	})
	w.t.Cleanup(w.stop)
	return w
}
