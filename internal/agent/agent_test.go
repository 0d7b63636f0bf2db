package agent

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/agent/history"
	"github.com/xfeldman/aegisvm/internal/agent/modeltest"
	"github.com/xfeldman/aegisvm/internal/agent/process"
)

func bash(id, command string) modeltest.Call {
	args, _ := json.Marshal(map[string]string{"command": command})
	return modeltest.Call{ID: id, Name: "bash", Args: string(args)}
}

// TestConversation is a message in each format: tools side by side, text around them, what
// is told on the way, and a second message that knows of the first.
func TestConversation(t *testing.T) {
	for name, model := range map[string]map[string]any{
		"chat":      {"model": "openai/gpt", "api": "chat"},
		"responses": {"model": "openai/gpt", "api": "responses"},
		"messages":  {"model": "anthropic/claude"},
		"host":      {"model": "host:ollama/llama"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, modeltest.Sequence(
				modeltest.Step{Text: "I write it.", Reasoning: "they want a file", Calls: []modeltest.Call{bash("a", "echo 42 > answer; echo written"), bash("b", "echo beside")}},
				modeltest.Step{Text: "It is done."},
				modeltest.Step{Text: "You are welcome."},
			))
			w.env["ANTHROPIC_API_KEY"] = modeltest.Key
			switch name {
			case "chat", "responses":
				model["base_url"] = w.model.URL + "/v1"
			case "messages":
				model["base_url"] = w.model.URL
			}
			w.configure(model)
			if name == "host" {
				w.host.Config.Handler = both(w.host, w.model)
			}
			w.start()
			id := w.host.say("write the answer")
			got := w.host.answer(id)
			if got.Text != "I write it.\n\nIt is done." || got.Error != "" {
				t.Errorf("answer: %+v", got)
			}
			if told := w.host.told(id); told != got.Text {
				t.Errorf("told %q, answered %q", told, got.Text)
			}
			if data, err := os.ReadFile(filepath.Join(w.workspace, "answer")); err != nil || string(data) != "42\n" {
				t.Errorf("the file: %q, %v", data, err)
			}
			id = w.host.say("thanks")
			w.host.answer(id)
			reqs := w.model.Requests()
			last := reqs[len(reqs)-1].Messages
			if len(last) != 6 || last[1].Text != "I write it." || !strings.Contains(last[2].Text, "written") || !strings.Contains(last[3].Text, "beside") {
				t.Errorf("the model was sent %+v", last)
			}
			w.host.until("the machine to be let go", func() bool { return w.host.leased > 0 && w.host.leases == 0 })
			if w.host.count(api.FrameAck) != 2 || w.host.count(api.FramePresence) < 4 {
				t.Errorf("heard %s", w.host.heard())
			}
			if name != "chat" && w.host.count(api.FrameReasoningDone) == 0 && name != "host" {
				t.Errorf("no reasoning: %s", w.host.heard())
			}
		})
	}
}

// TestNewMessageEndsTheRun: the run before ends with all that it started, in the
// background too, and both messages have their answer.
func TestNewMessageEndsTheRun(t *testing.T) {
	for name, end := range map[string]func(w *world){
		"message": func(w *world) { w.host.answer(w.host.say("stop that")) },
		"cancel":  func(w *world) { w.host.deliver(w.host.frame(api.FrameCancel, "default", nil)) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(r modeltest.Request) modeltest.Step {
				switch {
				case r.Last().Text == "stop that":
					return modeltest.Step{Text: "stopped"}
				case r.N == 0:
					args, _ := json.Marshal(map[string]any{"command": "setsid sleep 1000 & sleep 1000", "background": true})
					return modeltest.Step{Text: "working", Calls: []modeltest.Call{{ID: "a", Name: "bash", Args: string(args)}}}
				}
				return modeltest.Step{Calls: []modeltest.Call{bash("b", "echo started > started; sleep 1000")}}
			}).start()
			id := w.host.say("go")
			w.untilStarted()
			end(w)
			got := w.host.answer(id)
			if got.Error == "" || !strings.HasPrefix(got.Text, "working") {
				t.Errorf("answer: %+v", got)
			}
			w.untilGone(id)
			// The next request is valid, and tells the model what happened.
			w.host.answer(w.host.say("stop that"))
			reqs := w.model.Requests()
			if ms := reqs[len(reqs)-1].Messages; ms[len(ms)-2].Role != history.Assistant || !strings.Contains(fmt.Sprint(ms), "This was ended") {
				t.Errorf("the model was sent %+v", ms)
			}
		})
	}
}

// untilGone waits until nothing lives of the run for a message. All of it was killed before
// the answer came; the kernel may take a moment to be done with it.
func (w *world) untilGone(id string) {
	w.t.Helper()
	mark := runMark(api.Session{Channel: "host", ID: "default"}, id)
	for deadline := time.Now().Add(patience); process.Living(mark) > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("%d processes live on", process.Living(mark))
		}
	}
}

// untilStarted waits until a command has said that it runs.
func (w *world) untilStarted() {
	w.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(w.workspace, "started")); err == nil {
			return
		}
	}
	w.t.Fatal("no command starts")
}

func TestFrameIsTakenOnce(t *testing.T) {
	w := newWorld(t, modeltest.Sequence(modeltest.Step{Text: "once"})).start()
	f := w.host.frame(api.FrameUserMessage, "default", api.UserMessage{Text: "hi"})
	w.host.deliver(f)
	w.host.deliver(f)
	w.host.answer(f.MsgID)
	w.stop()
	w.start()
	w.host.deliver(f)
	w.host.answer(w.host.say("again"))
	if n := len(w.model.Requests()); n != 2 {
		t.Errorf("the model was asked %d times", n)
	}
}

// TestHostThatDropsConnections loses every third call, before or after it was heard.
func TestHostThatDropsConnections(t *testing.T) {
	w := newWorld(t, modeltest.Sequence(
		modeltest.Step{Text: "one two three four five", Calls: []modeltest.Call{bash("a", "echo x")}}, modeltest.Step{Text: "six"}))
	var mu sync.Mutex
	n := 0
	w.host.drop = func(string) bool {
		mu.Lock()
		defer mu.Unlock()
		n++
		return n%3 != 0
	}
	w.start()
	if got := w.host.answer(w.host.say("go")); got.Text != "one two three four five\n\nsix" {
		t.Errorf("answer: %+v", got)
	}
	w.stop()
	if n := w.host.count(api.FrameDone); n != 1 {
		t.Errorf("%d answers", n)
	}
}

// TestTroublesAreTold: whatever the model's server does, the user is told what happened
// and what to do, or gets the answer.
func TestTroublesAreTold(t *testing.T) {
	ok := modeltest.Step{Text: "fine"}
	for name, c := range map[string]struct {
		steps []modeltest.Step
		says  string
		fails bool
	}{
		"429 then fine":      {[]modeltest.Step{{Status: 429, Header: map[string]string{"Retry-After": "0.05"}}, ok}, "fine", false},
		"cut then fine":      {[]modeltest.Step{{Text: "one two three", CutAfter: 3}, ok}, "fine", false},
		"refused key":        {[]modeltest.Step{{Status: 401}}, "aegis secret set OPENAI_API_KEY", true},
		"unknown model":      {[]modeltest.Step{{Status: 404}}, "agent.json", true},
		"empty":              {[]modeltest.Step{{}}, "empty answer", false},
		"cut off":            {[]modeltest.Step{{Text: "one two", Stop: "length"}}, "max_tokens", false},
		"filtered":           {[]modeltest.Step{{Text: "one", Stop: "content_filter"}}, "refused to go on", false},
		"unknown tool":       {[]modeltest.Step{{Calls: []modeltest.Call{{ID: "a", Name: "fly", Args: "{}"}}}, ok}, "fine", false},
		"malformed argument": {[]modeltest.Step{{Calls: []modeltest.Call{{ID: "a", Name: "bash", Args: `{"command`}}}, ok}, "fine", false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, modeltest.Sequence(c.steps...)).start()
			got := w.host.answer(w.host.say("hi"))
			if !strings.Contains(got.Text, c.says) || (got.Error != "") != c.fails {
				t.Errorf("answer: %+v", got)
			}
			w.host.answer(w.host.say("and now?")) // the next request is valid
		})
	}
}

func TestTooLongAConversationIsShortened(t *testing.T) {
	w := newWorld(t, func(r modeltest.Request) modeltest.Step {
		n := 0
		for _, m := range r.Messages {
			n += len(m.Text)
		}
		if n > 3000 {
			return modeltest.Step{Status: 400, Body: `{"error":{"message":"maximum context length","code":"context_length_exceeded"}}`}
		}
		return modeltest.Step{Text: strings.Repeat("a", 500)}
	}).start()
	for range 10 {
		if got := w.host.answer(w.host.say(strings.Repeat("u", 400))); got.Error != "" {
			t.Fatalf("answer: %+v", got)
		}
	}
}

func TestSettings(t *testing.T) {
	w := newWorld(t, func(r modeltest.Request) modeltest.Step { return modeltest.Step{Text: "I am " + r.Model} })
	good, err := os.ReadFile(filepath.Join(w.workspace, ".aegis/agent.json"))
	if err != nil {
		t.Fatal(err)
	}
	w.write(".aegis/agent.json", `{"mdl":"x"}`)
	w.start()
	if got := w.host.answer(w.host.say("hi")); !strings.Contains(got.Text, `unknown field "mdl"`) || got.Error == "" {
		t.Errorf("nothing but wrong settings: %+v", got)
	}
	w.write(".aegis/agent.json", string(good))
	if got := w.host.answer(w.host.say("hi")); got.Text != "I am gpt" {
		t.Errorf("mended: %+v", got)
	}
	w.write(".aegis/agent.json", "{\n\"model\": 7}")
	id := w.host.say("hi")
	got := w.host.answer(id)
	if !strings.Contains(got.Text, "line 2") || !strings.HasSuffix(got.Text, "I am gpt") || got.Error != "" {
		t.Errorf("wrong, with a last good: %+v", got)
	}
	if told := w.host.told(id); told != got.Text {
		t.Errorf("told %q, answered %q", told, got.Text)
	}
	w.env["AEGIS_MODEL"] = "openai/other"
	w.write(".aegis/agent.json", string(good)+" ")
	if got := w.host.answer(w.host.say("hi")); got.Text != "I am other" {
		t.Errorf("the environment: %+v", got)
	}
}

func TestNoKey(t *testing.T) {
	w := newWorld(t, modeltest.Sequence(modeltest.Step{Text: "x"}))
	delete(w.env, "OPENAI_API_KEY")
	w.configure(map[string]any{})
	w.start()
	if got := w.host.answer(w.host.say("hi")); !strings.Contains(got.Text, "aegis secret set OPENAI_API_KEY") || got.Error == "" {
		t.Errorf("answer: %+v", got)
	}
}

func TestBudgetOfRounds(t *testing.T) {
	w := newWorld(t, func(r modeltest.Request) modeltest.Step {
		if r.NoCalls {
			return modeltest.Step{Text: "that is all", Calls: []modeltest.Call{bash("z", "touch never")}}
		}
		return modeltest.Step{Calls: []modeltest.Call{bash("a", "echo x")}}
	})
	w.configure(map[string]any{"model": "openai/gpt", "base_url": w.model.URL + "/v1", "budget": map[string]any{"rounds": 3}})
	w.start()
	if got := w.host.answer(w.host.say("hi")); got.Text != "that is all" {
		t.Errorf("answer: %+v", got)
	}
	reqs := w.model.Requests()
	if n := len(reqs); n != 4 || !strings.Contains(reqs[3].System, "all 3 rounds") {
		t.Errorf("asked %d times", n)
	}
	if _, err := os.Stat(filepath.Join(w.workspace, "never")); err == nil {
		t.Error("a call after the last round was run")
	}
}

// png is the smallest picture.
const png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

func TestPictures(t *testing.T) {
	data, err := base64.StdEncoding.DecodeString(png)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, modeltest.Sequence(
		modeltest.Step{Calls: []modeltest.Call{{ID: "a", Name: "read_file", Args: `{"path":"dot.png"}`}, {ID: "b", Name: "respond_with_image", Args: `{"path":"dot.png"}`}}},
		modeltest.Step{Text: "here"}))
	w.write(".aegis/blobs/in.png", string(data))
	w.write("dot.png", string(data))
	w.start()
	got := w.host.answer(w.host.say("", api.Picture{MediaType: "image/png", Blob: "in.png"}))
	if len(got.Images) != 1 || got.Images[0].MediaType != "image/png" {
		t.Fatalf("answer: %+v", got)
	}
	if out, err := os.ReadFile(filepath.Join(w.workspace, ".aegis/blobs", got.Images[0].Blob)); err != nil || string(out) != string(data) {
		t.Errorf("the picture: %v", err)
	}
	ms := w.model.Requests()[1].Messages
	if len(ms[0].Images) != 1 || len(ms[len(ms)-1].Images) != 1 {
		t.Errorf("the model was sent %+v", ms)
	}
}

// TestAgentThatEndsGoesOn stops an agent in the middle of a tool; the next one finishes,
// and knows that the call was cut short.
func TestAgentThatEndsGoesOn(t *testing.T) {
	w := newWorld(t, func(r modeltest.Request) modeltest.Step {
		if r.Last().Role == history.Tool {
			return modeltest.Step{Text: "it was cut: " + strconv.FormatBool(strings.Contains(r.Last().Text, "interrupted"))}
		}
		return modeltest.Step{Text: "first", Calls: []modeltest.Call{bash("a", "echo x > started; sleep 1000")}}
	}).start()
	id := w.host.say("go")
	w.untilStarted()
	w.stop()
	if n := w.host.count(api.FrameDone); n != 0 {
		t.Errorf("%d answers by an agent that was stopped", n)
	}
	w.start()
	if got := w.host.answer(id); got.Text != "first\n\nit was cut: true" || got.Error != "" {
		t.Errorf("answer: %+v", got)
	}
}

// TestNewMessageAfterARestart: what an agent that ended had not answered is answered too,
// whether the next agent hears of it by itself or by a newer message.
func TestNewMessageAfterARestart(t *testing.T) {
	w := newWorld(t, func(r modeltest.Request) modeltest.Step {
		if r.Last().Text == "never mind" {
			return modeltest.Step{Text: "good"}
		}
		return modeltest.Step{Calls: []modeltest.Call{bash("a", "echo x >> started; sleep 1000")}}
	}).start()
	first := w.host.say("go")
	w.untilStarted()
	w.stop()
	w.start()
	if got := w.host.answer(w.host.say("never mind")); got.Text != "good" {
		t.Errorf("answer: %+v", got)
	}
	if got := w.host.answer(first); got.Error == "" {
		t.Errorf("the first answer: %+v", got)
	}
}

// TestMoreSessionsThanStayOpen: a session that was closed meanwhile goes on.
func TestMoreSessionsThanStayOpen(t *testing.T) {
	w := newWorld(t, func(r modeltest.Request) modeltest.Step { return modeltest.Step{Text: strconv.Itoa(len(r.Messages))} }).start()
	for round := range 2 {
		for i := range openSessions + 8 {
			f := w.host.frame(api.FrameUserMessage, fmt.Sprint("s", i), api.UserMessage{Text: "hi"})
			w.host.deliver(f)
			if got := w.host.answer(f.MsgID); got.Text != strconv.Itoa(2*round+1) {
				t.Fatalf("answer: %+v", got)
			}
		}
	}
}

// TestScheduledMessages: one that comes while the one before is at work is left out, or
// ends it; a notification from it goes to where the user wrote last.
func TestScheduledMessages(t *testing.T) {
	w := newWorld(t, func(r modeltest.Request) modeltest.Step {
		switch {
		case r.Last().Text == "tell":
			return modeltest.Step{Calls: []modeltest.Call{{ID: "n", Name: "notify", Args: `{"text":"look here"}`}}}
		case r.Last().Text == "work":
			return modeltest.Step{Calls: []modeltest.Call{bash("a", "echo x >> started; sleep 1000")}}
		}
		return modeltest.Step{Text: "ok"}
	}).start()
	w.host.answer(w.host.say("hi"))
	cron := func(text, conflict string) string {
		f := w.host.frame(api.FrameUserMessage, "job", map[string]any{"text": text, "cron": map[string]string{"id": "job", "on_conflict": conflict}})
		f.Session.Channel = "cron"
		w.host.deliver(f)
		return f.MsgID
	}
	first := cron("work", "")
	w.untilStarted()
	cron("left out", "skip")
	last := cron("tell", "replace")
	w.host.answer(last)
	if got := w.host.answer(first); got.Error == "" {
		t.Errorf("answer: %+v", got)
	}
	if heard := w.host.heard(); !strings.Contains(heard, `assistant.done default {"text":"look here"}`) {
		t.Errorf("no notification in %s", heard)
	}
	for _, r := range w.model.Requests() {
		if r.Last().Text == "left out" {
			t.Error("a message that was to be left out is worked on")
		}
	}
}

func TestSessionsAreApart(t *testing.T) {
	w := newWorld(t, func(r modeltest.Request) modeltest.Step {
		return modeltest.Step{Text: fmt.Sprintf("%d messages, last %s", len(r.Messages), r.Last().Text)}
	}).start()
	var wg sync.WaitGroup
	for i := range 20 {
		f := w.host.frame(api.FrameUserMessage, fmt.Sprint("s", i), api.UserMessage{Text: fmt.Sprint("hello ", i)})
		wg.Go(func() { w.host.deliver(f) })
		defer func() {
			if got := w.host.answer(f.MsgID); got.Text != fmt.Sprintf("1 messages, last hello %d", i) {
				t.Errorf("answer: %+v", got)
			}
		}()
	}
	wg.Wait()
}

func TestUnknownAndBrokenFrames(t *testing.T) {
	w := newWorld(t, modeltest.Sequence(modeltest.Step{Text: "ok"})).start()
	w.host.deliver(w.host.frame("future.thing", "default", map[string]int{"a": 1})) // taken, or the host would send it for ever
	f := w.host.frame(api.FrameUserMessage, "default", "no object")
	w.host.deliver(f)
	w.host.answer(f.MsgID)
	for _, body := range []string{"", "{", `{"v":2,"msg_id":"a","session":{"channel":"host"}}`, `{"v":1,"session":{"channel":"host"}}`, `{"v":1,"msg_id":"x"}`} {
		if _, err := DecodeFrame([]byte(body)); err == nil {
			t.Errorf("%q is a frame", body)
		}
	}
}

func FuzzFrame(f *testing.F) {
	f.Add([]byte(`{"v":1,"type":"user.message","session":{"channel":"host","id":"x"},"msg_id":"m","seq":1,"payload":{"text":"a","images":[{"blob":"b"}]}}`))
	f.Add([]byte(`{"v":1,"type":"user.message","session":{"channel":"cron","id":"x"},"msg_id":"m","payload":{"cron":{"on_conflict":"skip"}}}`))
	f.Fuzz(func(_ *testing.T, data []byte) {
		if fr, err := DecodeFrame(data); err == nil {
			_, _ = readMessage(fr)
		}
	})
}

// TestStopsAtRandom ends and starts the agent at random moments of conversations, in its
// own process: every message is answered, once.
func TestStopsAtRandom(t *testing.T) {
	w := newWorld(t, func(r modeltest.Request) modeltest.Step {
		if r.Last().Role == history.User {
			return modeltest.Step{Text: "look", Calls: []modeltest.Call{bash("a", "echo 1"), bash("b", "echo 2")}}
		}
		return modeltest.Step{Text: "done with it"}
	}).start()
	for i := range 12 {
		id := w.host.say(fmt.Sprint("task ", i))
		heard, n := w.host.heard(), rand.IntN(9)
		w.host.until("some frames", func() bool {
			frames := w.host.frames[strings.Count(heard, "\n"):]
			done := slices.ContainsFunc(frames, func(f api.Frame) bool { return f.Type == api.FrameDone })
			return done || len(frames) >= n
		})
		w.stop()
		w.start()
		if got := w.host.answer(id); got.Text != "look\n\ndone with it" || got.Error != "" {
			t.Fatalf("answer: %+v", got)
		}
	}
}
