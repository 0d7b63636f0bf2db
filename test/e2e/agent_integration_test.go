//go:build integration

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
	"github.com/xfeldman/aegisvm/internal/agent/history"
	"github.com/xfeldman/aegisvm/internal/agent/modeltest"
)

// half is the program that the model writes: it adds up the numbers of a range.
const half = "import sys\nprint(sum(range(int(sys.argv[1]), int(sys.argv[2]))))\n"

// mind is what the model of these tests thinks: it answers by the newest message of the
// user and by how many rounds of tools there were since.
type mind struct {
	asked   chan struct{} // one for each time that it is asked to be slow
	goOn    chan struct{} // lets it answer then
	mu      sync.Mutex
	ticks   int // how often the schedule has spoken
	answers map[string]time.Time
}

// tick returns how often the schedule has spoken.
func (m *mind) tick() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ticks
}

// answered returns when the model began to answer a message.
func (m *mind) answered(text string) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.answers[text]
}

func (m *mind) think(r modeltest.Request) modeltest.Step {
	user, rounds := "", 0
	var results []string
	for _, msg := range r.Messages {
		switch msg.Role {
		case history.User:
			user, rounds, results = msg.Text, 0, nil
		case history.Assistant:
			rounds++
		case history.Tool:
			results = append(results, strings.TrimSpace(msg.Text))
		}
	}
	verb, rest, _ := strings.Cut(user, " ")
	switch verb {
	case "add":
		return m.add(rounds, results)
	case "remember?":
		return modeltest.Step{Text: "you said " + r.Messages[0].Text}
	case "slowly":
		m.asked <- struct{}{}
		<-m.goOn
	case "schedule":
		if rounds == 0 {
			return use(call("cron_create", map[string]any{"schedule": "* * * * *", "message": "tick"}))
		}
	case "tick":
		m.mu.Lock()
		m.ticks++
		m.mu.Unlock()
	case "work":
		switch rounds {
		case 0:
			step := use(bash("sleep 0.1; echo one"), bash("echo two"))
			step.Text, step.Pace = "I look. ", 20*time.Millisecond
			return step
		case 1:
			return use(call("write_file", map[string]any{"path": "work-" + rest, "content": rest}), bash("sleep 0.2; cat work-*"))
		}
	case "quick":
		m.mu.Lock()
		m.answers[user] = time.Now()
		m.mu.Unlock()
	}
	return modeltest.Step{Text: "done with " + user}
}

// add has the model do one half of a sum by itself and leave the other to a child, which
// shares its workspace.
func (m *mind) add(rounds int, results []string) modeltest.Step {
	switch rounds {
	case 0:
		return use(call("write_file", map[string]any{"path": "half.py", "content": half}))
	case 1:
		child := "python3 /workspace/half.py 50 100 > /workspace/part && mv /workspace/part /workspace/other; exec sleep infinity"
		return use(bash("python3 half.py 0 50"), call("aegis_instance_spawn", map[string]any{
			"command": []string{"sh", "-c", child}, "handle": "helper", "workspace": ".",
		}))
	case 2:
		return use(bash("until [ -e other ]; do sleep 0.1; done; cat other"))
	}
	return modeltest.Step{Text: fmt.Sprintf("mine is %s and the helper's is %s", results[1], results[len(results)-1]), Pace: 20 * time.Millisecond}
}

func use(calls ...modeltest.Call) modeltest.Step {
	for i := range calls {
		calls[i].ID = fmt.Sprintf("call-%d-%d", i, rand.Uint64())
	}
	return modeltest.Step{Calls: calls}
}

func call(name string, args map[string]any) modeltest.Call {
	b, err := json.Marshal(args)
	if err != nil {
		panic(err) // strings and lists of them
	}
	return modeltest.Call{Name: name, Args: string(b)}
}

func bash(command string) modeltest.Call { return call("bash", map[string]any{"command": command}) }

// agents is a host with a model server of its own, and agents that ask it.
type agents struct {
	*host
	mind  *mind
	model *modeltest.Server
	name  string // of whom say, answer and first speak to
}

func newAgents(t *testing.T) *agents {
	m := &mind{asked: make(chan struct{}), goOn: make(chan struct{}), answers: map[string]time.Time{}}
	model := modeltest.New(t, m.think)
	model.Open = true
	a := &agents{newHost(t, "AEGIS_LLM_OLLAMA="+model.URL), m, model, "my-agent"}
	a.ok("secret", "set", "OPENAI_API_KEY", modeltest.Key)
	return a
}

// start starts an agent as docs/AGENT_KIT.md does, with what a model on the host needs.
func (a *agents) start(name string, args ...string) {
	a.t.Helper()
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "AGENT_KIT.md"))
	if err != nil {
		a.t.Fatal(err)
	}
	rights := regexp.MustCompile(`(?m)^({"spawn".*})$`).FindSubmatch(doc)
	if rights == nil || !strings.Contains(string(doc), "--kit agent --name my-agent --secret OPENAI_API_KEY") {
		a.t.Fatal("docs/AGENT_KIT.md has no start of an agent, or no capabilities for local models")
	}
	file := filepath.Join(a.t.TempDir(), "rights.json")
	if err := os.WriteFile(file, rights[1], 0o600); err != nil {
		a.t.Fatal(err)
	}
	a.ok(append([]string{
		"instance", "start", "--kit", "agent", "--name", name, "--secret", "OPENAI_API_KEY",
		"--capabilities", file, "--env", "AEGIS_MODEL=host:ollama/scripted",
	}, args...)...)
}

// say sends the agent a message, and returns its id.
func (a *agents) say(text string) string {
	a.t.Helper()
	sent, err := a.client().TetherSend(a.t.Context(), a.name, message("default", text))
	if err != nil {
		a.t.Fatalf("%s: %v", text, err)
	}
	return sent.MsgID
}

// answer waits for what answers a message.
func (a *agents) answer(id string) (m api.AssistantMessage) {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), patience)
	defer cancel()
	for {
		page, err := a.client().TetherPoll(ctx, a.name, client.TetherQuery{Types: []api.FrameType{api.FrameDone}, ReplyToID: id, Wait: 20 * time.Second})
		if err != nil {
			a.t.Fatalf("the answer to %s: %v\n%s\n%s", id, err, a.try("logs", a.name).stdout, a.log())
		}
		if len(page.Frames) > 0 {
			if err := json.Unmarshal(page.Frames[0].Payload, &m); err != nil {
				a.t.Fatal(err)
			}
			return m
		}
	}
}

// asleep waits until an instance is saved on disk.
func (a *agents) asleep(name string) {
	a.t.Helper()
	eventually(a.t, name+" sleeps on disk", func() bool { return a.info(name).Hibernated })
}

// TestAgentKit: what the agent kit promises, in real VMs.
func TestAgentKit(t *testing.T) {
	a := newAgents(t)
	if out := a.ok("kit", "list"); !strings.Contains(out, "agent") || !strings.Contains(out, " ok") {
		t.Fatalf("kit list:\n%s", out)
	}
	if out := a.run("sh", "-c", "command -v aegis-mcp-guest; command -v aegis-agent || true"); out != "/run/aegis/host/bin/aegis-mcp-guest\n" {
		t.Errorf("a VM without a kit has %q", out)
	}
	a.start("clock", "--pause-after", "1s", "--stop-after", "1s")
	a.ok("tether", "send", "clock", "schedule it", "--wait")
	a.start("my-agent", "--pause-after", "1s", "--stop-after", "2s")
	chat := a.aegis("tether", "chat", "my-agent")
	chat.Stdin = strings.NewReader("hello\n")
	if r := finish(t, chat); r.status != 0 || r.stdout != "done with hello\n" {
		t.Errorf("chat: %+v", r)
	}
	a.asleep("clock")
	ticks := a.mind.tick()
	a.delegates()
	a.remembers()
	a.holds()
	a.figures()
	a.cutShort()
	eventually(t, "the schedule speaks to a sleeping agent", func() bool { return a.mind.tick() > ticks })
	a.ok("instance", "delete", "my-agent")
	a.ok("instance", "delete", "clock")
	if list := a.ok("instance", "list", "--json"); strings.TrimSpace(list) != "[]" {
		t.Errorf("left are %s", list)
	}
}

// delegates: asked by a model of the host, the agent writes a program, runs it, has a
// child run it too, and answers. Its words come as it says them.
func (a *agents) delegates() {
	t := a.t
	t.Helper()
	m := newModel(t, a.host)
	var sent struct {
		IngressSeq int64 `json:"ingress_seq"`
	}
	m.tool("tether_send", map[string]any{"instance": "my-agent", "text": "add the numbers below 100"}, &sent)
	heard := make(chan string, 1)
	go func() { // ends with the answer, which is stored, or with the test
		var said strings.Builder
		for f, err := range a.client().TetherStream(t.Context(), "my-agent", client.TetherQuery{
			After: sent.IngressSeq, Types: []api.FrameType{api.FrameDelta, api.FrameDone},
		}) {
			if err != nil || f.Type == api.FrameDone {
				break
			}
			said.WriteString("|" + messageText(f))
		}
		heard <- said.String()
	}()
	const want = "mine is 1225 and the helper's is 3725"
	deltas, answer, after := 0, "", sent.IngressSeq
	for answer == "" {
		var page struct {
			Frames []struct {
				Type    string
				Payload api.AssistantMessage
			}
			NextSeq int64 `json:"next_seq"`
		}
		m.tool("tether_read", map[string]any{
			"instance": "my-agent", "after_seq": after, "wait_ms": 30000, "types": []string{"assistant.delta", "assistant.done"},
		}, &page)
		for _, f := range page.Frames {
			if f.Type == "assistant.delta" {
				deltas++
			} else {
				answer = f.Payload.Text
			}
		}
		after = page.NextSeq
	}
	if answer != want || deltas < 2 {
		t.Errorf("over MCP: %d deltas, %q", deltas, answer)
	}
	if said := <-heard; strings.ReplaceAll(said, "|", "") != want || strings.Count(said, "|") < 3 {
		t.Errorf("streamed: %q", said)
	}
	if parent, kid := a.info("my-agent"), a.info("helper"); kid.ParentID != parent.ID {
		t.Errorf("the helper's parent is %q", kid.ParentID)
	}
	if got := load(t, filepath.Join(a.info("my-agent").WorkspaceDir, "half.py")); string(got) != half {
		t.Errorf("on the host its program is %q", got)
	}
	a.ok("instance", "disable", "my-agent")
	if kid := a.info("helper"); kid.Enabled {
		t.Error("the child of a disabled parent is enabled")
	}
	a.ok("instance", "start", "--name", "my-agent")
}

// remembers: left alone the agent sleeps on disk; the next message wakes it, and what was
// said before is there.
func (a *agents) remembers() {
	a.t.Helper()
	a.asleep("my-agent")
	if got := a.ok("tether", "send", "my-agent", "remember? what I said first", "--wait"); got != "you said hello\n" {
		a.t.Errorf("after its sleep it answers %q", got)
	}
}

// holds: an agent whose model takes its time is awake beyond its idle time.
func (a *agents) holds() {
	t := a.t
	t.Helper()
	id := a.say("slowly now")
	<-a.mind.asked
	time.Sleep(4 * time.Second) // more than what would pause and save it
	if i := a.info("my-agent"); i.State != api.StateRunning || !i.LeaseHeld {
		t.Errorf("at work it is %s, held by %+v", i.State, i.Holds)
	}
	a.mind.goOn <- struct{}{}
	if m := a.answer(id); m.Text != "done with slowly now" || m.Error != "" {
		t.Errorf("it answers %+v", m)
	}
	eventually(t, "it sleeps when it waits", func() bool { return a.info("my-agent").State != api.StateRunning })
}

// figures logs what an agent costs: its memory when it has nothing to do, and its time
// from a message to the first word, beside the wake that is in it and what the least agent
// needs for the same.
func (a *agents) figures() {
	t := a.t
	t.Helper()
	rss := a.ok("exec", "my-agent", "--", "sh", "-c", `for p in /proc/[0-9]*; do case $(cat $p/comm) in aegis-agent|aegis-mcp-guest) cat $p/comm; grep VmRSS $p/status;; esac; done`)
	t.Logf("idle memory: %s", strings.Join(strings.Fields(rss), " "))
	least := a.least()
	a.ok("instance", "set", a.name, "--pause-after", "0", "--stop-after", "0")
	a.ok("instance", "resume", a.name)
	for _, sleep := range [][]string{{"instance", "pause"}, {"instance", "stop", "--hibernate"}} {
		for _, who := range []*agents{least, a} {
			who.figure(sleep...)
		}
	}
	a.ok("instance", "set", a.name, "--pause-after", "1s")
	a.ok("instance", "delete", least.name)
}

// cutShort pauses, saves, or loses the daemon at random moments of conversations. What was
// asked is answered once, and the model's server finds every history valid.
func (a *agents) cutShort() {
	t := a.t
	t.Helper()
	a.ok("instance", "set", "my-agent", "--stop-after", "0")
	happens := []struct {
		what string
		do   func()
	}{
		{"death of the daemon", func() { a.signal(syscall.SIGKILL); a.up() }},
		{"save", func() { a.hibernate("my-agent") }},
		{"pause", func() { a.ok("instance", "pause", "my-agent") }},
	}
	answers := map[string]string{} // by the id of what they answer
	for i := range stress(2, 30) {
		h := happens[i%len(happens)]
		id := a.say("work " + strconv.Itoa(i))
		after := rand.N(1200 * time.Millisecond)
		time.Sleep(after)
		h.do()
		var newer string
		if i%2 == 0 {
			if _, err := a.client().Resume(t.Context(), "my-agent"); err != nil {
				t.Fatal(err)
			}
		} else { // wakes it, and ends the work on the one before
			newer = a.say(fmt.Sprintf("work %d again", i))
			answers[newer] = a.answer(newer).Text
		}
		m := a.answer(id)
		answers[id] = m.Text
		t.Logf("%s after %v: %q, %q", h.what, after, m.Text, answers[newer])
		if whole := strings.HasSuffix(m.Text, "done with work "+strconv.Itoa(i)); m.Text == "" || !whole && newer == "" {
			t.Errorf("%s after %v: the answer is %+v", h.what, after, m)
		}
		if newer != "" && !strings.HasSuffix(answers[newer], "again") {
			t.Errorf("%s after %v: the newer answer is %q", h.what, after, answers[newer])
		}
	}
	seen := map[string]int{}
	for after := int64(0); ; {
		page, err := a.client().TetherPoll(t.Context(), "my-agent", client.TetherQuery{Types: []api.FrameType{api.FrameDone}, After: after, Limit: 200})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range page.Frames {
			var m api.AssistantMessage
			if err := json.Unmarshal(f.Payload, &m); err != nil {
				t.Fatal(err)
			}
			seen[m.ReplyTo]++
		}
		if len(page.Frames) == 0 {
			break
		}
		after = page.NextSeq
	}
	for id := range answers {
		if seen[id] != 1 {
			t.Errorf("the message %s is answered %d times", id, seen[id])
		}
	}
}
