package mcpserver

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"image"
	"image/png"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
)

// TestLaunch: calls that find no daemon have it started, and go on.
func TestLaunch(t *testing.T) {
	w := sleepingWorld(t)
	w.on("GET /v1/instances", []api.Instance{})
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			res, err := w.session.CallTool(t.Context(), &mcp.CallToolParams{Name: "instance_list"})
			if err != nil || res.IsError {
				t.Errorf("list: %v, %v", err, res)
			}
		})
	}
	wg.Wait()
	if w.launches == 0 {
		t.Error("nobody has started the daemon")
	}
}

// TestErrors: what the daemon says reaches the model as a result: cause, fault and next step.
func TestErrors(t *testing.T) {
	w := newWorld(t)
	fail := func(pattern string, status int, err *fault.Error) {
		w.api.HandleFunc(pattern, func(rw http.ResponseWriter, _ *http.Request) { reply(rw, status, api.ErrorOf(err)) })
	}
	fail("POST /v1/instances/full/restart", 507, fault.New(fault.Exhausted, "no memory").By(fault.Host).WithHint("stop something"))
	fail("GET /v1/instances/gone", 404, fault.New(fault.NotFound, `there is no instance "gone"`).WithHint("see: aegis instance list"))
	fail("POST /v1/instances/odd/pause", 503, fault.New(fault.Unavailable, "it does not answer"))
	for _, c := range []struct {
		tool string
		in   args
		want string
		code fault.Kind
	}{
		{"instance_restart", args{"name": "full"}, "no memory\nat fault: the user's machine\nnext: stop something", fault.Exhausted},
		{"instance_info", args{"name": "gone"}, "there is no instance \"gone\"\nnext: see: aegis instance list; or list what there is: instance_list, snapshot_list, image_list, kit_list or secret_list", fault.NotFound},
		{"instance_pause", args{"name": "odd"}, "it does not answer\nnext: try again; if it stays so, ask the user to run: aegis doctor", fault.Unavailable},
	} {
		res := w.call(c.tool, c.in)
		if !res.IsError || text(res) != c.want || res.StructuredContent != nil {
			t.Errorf("%s: %q, want %q", c.tool, text(res), c.want)
		}
		if meta, _ := res.Meta[errorMeta].(map[string]any); meta["code"] != string(c.code) {
			t.Errorf("%s: meta %v", c.tool, res.Meta)
		}
	}
	if _, err := w.session.CallTool(t.Context(), &mcp.CallToolParams{Name: "nonsense"}); err == nil {
		t.Error("a tool that does not exist")
	}
}

// TestCancel: a call that its client calls off ends at the daemon.
func TestCancel(t *testing.T) {
	w := newWorld(t)
	called, ended := make(chan struct{}), make(chan struct{})
	w.api.HandleFunc("POST /v1/instances/slow/restart", func(_ http.ResponseWriter, r *http.Request) {
		close(called)
		<-r.Context().Done()
		close(ended)
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-called
		cancel()
	}()
	_, err := w.session.CallTool(ctx, &mcp.CallToolParams{Name: "instance_restart", Arguments: args{"name": "slow"}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
	<-ended
}

// TestPull: an instance's image is fetched first, and its client hears how far it is.
func TestPull(t *testing.T) {
	w := newWorld(t)
	w.api.HandleFunc("POST /v1/images/pull", func(rw http.ResponseWriter, _ *http.Request) {
		reply(rw, http.StatusOK, api.ImageProgress{Status: "downloading", Current: 1 << 20, Total: 4 << 20})
		if err := http.NewResponseController(rw).Flush(); err != nil {
			t.Error(err)
		}
		if m := <-w.progress; !strings.Contains(m, "downloading alpine: 1") { // it is told while the pull goes on
			t.Errorf("progress %q", m)
		}
		reply(rw, http.StatusOK, api.ImageProgress{Status: "done", Image: &api.Image{ID: "sha256:1", Names: []string{"alpine"}}})
	})
	var req api.CreateRequest
	w.api.HandleFunc("POST /v1/instances", func(rw http.ResponseWriter, r *http.Request) {
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			t.Error(err)
		}
		reply(rw, http.StatusCreated, api.Created{ID: "inst-1", Handle: "box", State: api.StateRunning, Endpoints: []api.Endpoint{
			{GuestPort: 80, PublicPort: 8080, Protocol: "http"},
		}})
	})
	params := &mcp.CallToolParams{Name: "instance_start", Arguments: args{
		"name": "box", "image": "alpine", "command": []string{"sleep", "1"}, "expose": []any{"8080:80", 81}, "workspace": "./here",
		"kit": "agent", "capabilities": args{"spawn": true, "max_children": 2},
	}}
	params.SetProgressToken("t")
	res, err := w.session.CallTool(t.Context(), params)
	if err != nil || res.IsError || text(res) != "box (inst-1) has started and is running\nport 80: http://127.0.0.1:8080" {
		t.Errorf("%v, %q", err, text(res))
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if len(req.Expose) != 2 || req.Expose[0].PublicPort != 8080 || req.Expose[1].Port != 81 || req.Workspace != filepath.Join(dir, "here") ||
		!req.Wait || req.Capabilities == nil || req.Capabilities.MaxChildren != 2 {
		t.Errorf("request %+v", req)
	}
}

func TestKits(t *testing.T) {
	w := newWorld(t)
	w.on("GET /v1/kits", []api.Kit{{
		Name: "agent", Status: api.KitBroken, Missing: []string{"aegis-agent"}, Defaults: api.KitDefaults{Command: []string{"aegis-agent"}},
		Config: []api.KitConfig{{Path: "/workspace/.aegis/agent.json"}}, ReferencedEnv: []string{"OPENAI_API_KEY"},
	}})
	k := result[kitsOutput](w, "kit_list", nil).Kits
	if len(k) != 1 || k[0].Status != "broken" || k[0].Missing[0] != "aegis-agent" || k[0].Env[0] != "OPENAI_API_KEY" || k[0].Config[0] == "" {
		t.Errorf("kits = %+v", k)
	}
}

func pngOf(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, 2, 2))); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestTether: a message with pictures goes to the agent, and its answer with one comes back.
func TestTether(t *testing.T) {
	w := newWorld(t)
	picture := pngOf(t)
	file := filepath.Join(t.TempDir(), "a.png")
	if err := os.WriteFile(file, picture, 0o600); err != nil {
		t.Fatal(err)
	}
	w.on("POST /v1/instances/bot/blob", api.Blob{Blob: "b.png", MediaType: "image/png", Size: int64(len(picture))})
	var sent api.Frame
	w.api.HandleFunc("POST /v1/instances/bot/tether", func(rw http.ResponseWriter, r *http.Request) {
		if err := json.NewDecoder(r.Body).Decode(&sent); err != nil {
			t.Error(err)
		}
		reply(rw, http.StatusAccepted, api.TetherSent{MsgID: "m1", SessionID: sent.Session.ID, IngressSeq: 7})
	})
	out := result[sendOutput](w, "tether_send", args{"instance": "bot", "text": "look", "images": []args{
		{"path": file}, {"data": base64.StdEncoding.EncodeToString(picture), "media_type": "image/png"},
	}})
	var msg api.UserMessage
	if err := json.Unmarshal(sent.Payload, &msg); err != nil {
		t.Fatal(err)
	}
	if (out != sendOutput{"m1", "default", 7}) || sent.Type != api.FrameUserMessage || (sent.Session != api.Session{Channel: "host", ID: "default"}) ||
		sent.V != 1 || msg.Text != "look" || len(msg.Images) != 2 || msg.Images[1].Blob != "b.png" {
		t.Errorf("%+v; sent %+v, %+v", out, sent, msg)
	}
	answer, err := json.Marshal(api.AssistantMessage{Text: "a square", Images: []api.Picture{{MediaType: "image/png", Blob: "c.png", Size: 70}}, ReplyTo: "m1"})
	if err != nil {
		t.Fatal(err)
	}
	w.api.HandleFunc("GET /v1/instances/bot/tether/poll", func(rw http.ResponseWriter, r *http.Request) {
		if got := r.URL.Query().Encode(); got != "after_seq=7&channel=host&limit=50&session_id=default&types=assistant.done%2Cstatus.presence&wait_ms=1000" {
			t.Errorf("query %s", got)
		}
		reply(rw, http.StatusOK, api.TetherPage{NextSeq: 9, Frames: []api.Frame{
			{V: 1, Type: api.FramePresence, Seq: 8, Payload: []byte(`{"state":"thinking"}`)}, {V: 1, Type: api.FrameDone, Seq: 9, Payload: answer},
		}})
	})
	w.api.HandleFunc("GET /v1/instances/bot/workspace", func(rw http.ResponseWriter, r *http.Request) {
		if p := r.URL.Query().Get("path"); p != ".aegis/blobs/c.png" {
			t.Errorf("read %s", p)
		}
		_, _ = rw.Write(picture) // the test sees what is missing
	})
	res := w.call("tether_read", args{"instance": "bot", "after_seq": 7, "wait_ms": 1000, "types": []string{"assistant.done", "status.presence"}})
	want := "8 status.presence: thinking\n9 assistant.done: a square (picture /workspace/.aegis/blobs/c.png, image/png)\nnext: after_seq 9"
	if text(res) != want {
		t.Errorf("said %q, want %q", text(res), want)
	}
	if img, ok := res.Content[len(res.Content)-1].(*mcp.ImageContent); !ok || !bytes.Equal(img.Data, picture) {
		t.Errorf("content %v", res.Content)
	}
}

// TestTetherRefusesFiles that are no pictures to send, before any of them is read.
func TestTetherRefusesFiles(t *testing.T) {
	w := newWorld(t)
	for _, p := range []args{{}, {"path": "/dev/zero"}, {"path": t.TempDir()}, {"path": "/no/such"}, {"data": "?"}, {"path": "a", "data": "b"}} {
		if res := w.call("tether_send", args{"instance": "bot", "text": "x", "images": []args{p}}); !res.IsError || !strings.Contains(text(res), "image 1") {
			t.Errorf("%v: %q", p, text(res))
		}
	}
}
