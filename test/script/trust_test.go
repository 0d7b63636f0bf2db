package script

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
)

// TestKitRights: an instance of a kit may do what the kit's manifest says, or, where its
// user says something, that. Its programs get no more of it by naming the kit.
func TestKitRights(t *testing.T) {
	h := newHost(t)
	dir := filepath.Join(string(h.home), "kits")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	manifest := `{"name":"helper","version":"1","defaults":{"capabilities":{"spawn":true,"spawn_depth":1,"max_children":2,"allowed_secrets":["MINE"]}}}`
	if err := os.WriteFile(filepath.Join(dir, "helper.json"), []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"MINE", "OTHER"} {
		if _, err := h.SetSecret(t.Context(), name, "value-of-"+name); err != nil {
			t.Fatal(err)
		}
	}
	as := func(handle string, given *api.Capabilities) *guestOf {
		return h.start(api.CreateRequest{Handle: handle, Kit: "helper", Secrets: []string{"MINE", "OTHER"}, Capabilities: given})
	}
	whole := as("whole", nil)
	fewer := as("fewer", &api.Capabilities{Spawn: true, SpawnDepth: 1, MaxChildren: 1})
	none := as("none", &api.Capabilities{})
	child := whole.spawn(api.SpawnRequest{Secrets: []string{"MINE"}})
	whole.spawn(api.SpawnRequest{})
	fewer.spawn(api.SpawnRequest{})
	before := len(h.ids())
	for _, c := range []struct {
		name   string
		of     *guestOf
		body   string
		status int
		why    string
	}{
		{"one more than the kit says", whole, `{"command":["x"]}`, 403, "max_children"},
		{"a secret that the kit does not name", whole, `{"command":["x"],"secrets":["OTHER"]}`, 403, "allowed_secrets"},
		{"one more than the user says", fewer, `{"command":["x"]}`, 403, "max_children"},
		{"the kit's secret, which the user does not name", fewer, `{"command":["x"],"secrets":["MINE"]}`, 403, "allowed_secrets"},
		{"any, where the user says none", none, `{"command":["x"]}`, 403, "spawn"},
		{"a child of a child", child, `{"command":["x"]}`, 403, "spawn"},
		{"a child of the kit", whole, `{"command":["x"],"kit":"helper"}`, 400, "kit"},
	} {
		if status, text := c.of.do("POST", "/v1/instances", c.body); status != c.status || !strings.Contains(text, c.why) {
			t.Errorf("%s: %d %s, want %d and %q", c.name, status, text, c.status, c.why)
		}
	}
	if after := len(h.ids()); after != before {
		t.Errorf("there are %d instances, were %d", after, before)
	}
}

// TestForgedFrames has a guest send what only a user, or another's agent, may say. Nothing
// of it is stored.
func TestForgedFrames(t *testing.T) {
	h := newHost(t)
	g := h.start(api.CreateRequest{Handle: "agent"})
	other := h.start(api.CreateRequest{Handle: "other"})
	session := `"session":{"channel":"telegram","id":"7"}`
	done := `{"type":"assistant.done",` + session + `,"payload":{"text":"x"}`
	for _, c := range []struct {
		name, path, body string
		status           int
	}{
		{"a user's message", "/v1/tether/send", `{"type":"user.message",` + session + `,"payload":{"text":"x"}}`, 400},
		{"a user's cancel", "/v1/tether/send", `{"type":"control.cancel",` + session + `,"payload":{}}`, 400},
		{"a type that there is not", "/v1/tether/send", `{"type":"system.message",` + session + `,"payload":{"text":"x"}}`, 400},
		{"a type of another case", "/v1/tether/send", `{"type":"User.Message",` + session + `,"payload":{"text":"x"}}`, 400},
		{"a channel that there is not", "/v1/tether/send", `{"type":"assistant.done","session":{"channel":"root","id":"7"},"payload":{"text":"x"}}`, 400},
		{"a session that is a path", "/v1/tether/send", `{"type":"assistant.done","session":{"channel":"host","id":"../7"},"payload":{"text":"x"}}`, 400},
		{"another's tether by its id", "/v1/instances/" + other.id + "/tether", done + "}", 404},
		{"another's tether by its name", "/v1/instances/other/tether/send", done + "}", 404},
	} {
		if status, text := g.do("POST", c.path, c.body); status != c.status {
			t.Errorf("%s: %d %s, want %d", c.name, status, text, c.status)
		}
	}
	frames := func(ref string) []api.Frame {
		t.Helper()
		page, err := h.TetherPoll(t.Context(), ref, client.TetherQuery{})
		if err != nil {
			t.Fatal(err)
		}
		return page.Frames
	}
	if all := append(frames("agent"), frames("other")...); len(all) != 0 {
		t.Errorf("stored is %+v", all)
	}
	// Whatever else a frame says of whose it is, it is the sender's, with the host's number.
	for _, more := range []string{`,"seq":99`, `,"instance":"` + other.id + `"`, `,"instance_id":"other","seq":-1`} {
		g.do("POST", "/v1/tether/send", done+more+"}")
	}
	if all := frames("other"); len(all) != 0 {
		t.Errorf("the other has %+v", all)
	}
	for i, f := range frames("agent") {
		if f.Seq != int64(i)+1 || f.Type != api.FrameDone {
			t.Errorf("frame %d is %+v", i, f)
		}
	}
	// An answer to another's message is no answer there.
	asked, err := h.TetherSend(t.Context(), "other", api.Frame{
		Type: api.FrameUserMessage, Session: api.Session{Channel: "host", ID: "s"}, Payload: []byte(`{"text":"?"}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	g.must("POST", "/v1/tether/send", `{"type":"assistant.done","session":{"channel":"host","id":"s"},"payload":{"text":"x","reply_to":"`+asked.MsgID+`"}}`, nil)
	page, err := h.TetherPoll(t.Context(), "other", client.TetherQuery{ReplyToID: asked.MsgID})
	if err != nil || len(page.Frames) != 0 {
		t.Errorf("the other was answered: %+v, %v", page.Frames, err)
	}
}
