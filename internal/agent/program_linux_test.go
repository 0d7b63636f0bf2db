package agent

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/agent/history"
	"github.com/xfeldman/aegisvm/internal/agent/modeltest"
)

// program is cmd/aegis-agent as it is shipped, built once.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "aegis-agent-test")
	if err != nil {
		return "", err
	}
	built = dir
	path := filepath.Join(dir, "aegis-agent")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "../../cmd/aegis-agent")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return path, nil
})

// proc is a running agent.
type proc struct {
	w   *world
	cmd *exec.Cmd
	log *os.File
}

// launch starts the program on the world's workspace, at a port that stays the same.
func (w *world) launch() *proc {
	w.t.Helper()
	path, err := program()
	if err != nil {
		w.t.Fatal(err)
	}
	if w.host.agent == "" {
		l, err := (&net.ListenConfig{}).Listen(w.t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			w.t.Fatal(err)
		}
		w.host.mu.Lock()
		w.host.agent = l.Addr().String()
		w.host.mu.Unlock()
		_ = l.Close()
	}
	log, err := os.OpenFile(filepath.Join(w.t.TempDir(), "log"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		w.t.Fatal(err)
	}
	p := &proc{w: w, log: log, cmd: exec.Command(path)}
	p.cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "AEGIS_AGENT_WORKSPACE=" + w.workspace, "AEGIS_AGENT_LISTEN=" + w.host.agent,
		"AEGIS_GUEST_API=" + w.host.URL, "OPENAI_API_KEY=" + modeltest.Key,
	}
	p.cmd.Stderr = log
	if err := p.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(p.kill)
	return p
}

// kill ends the process at once, as a machine's end does.
func (p *proc) kill() {
	if p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		_ = p.log.Close()
	}
}

// rss returns the resident memory of the process, in kilobytes.
func (p *proc) rss() int {
	p.w.t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.w.t.Fatal(err)
	}
	for l := range strings.SplitSeq(string(data), "\n") {
		if v, ok := strings.CutPrefix(l, "VmRSS:"); ok {
			n, err := strconv.Atoi(strings.Fields(v)[0])
			if err != nil {
				p.w.t.Fatal(err)
			}
			return n
		}
	}
	p.w.t.Fatal("no VmRSS")
	return 0
}

// task is a model that works in rounds, as long as it is asked to: what it says follows
// from the conversation alone.
func task(r modeltest.Request) modeltest.Step {
	round := 0
	for _, m := range r.Messages {
		switch {
		case m.Role == history.User:
			round = 0
		case len(m.Calls) > 0:
			round++
		}
	}
	if round < 3 {
		write, _ := json.Marshal(map[string]string{"path": fmt.Sprintf("out/%d", round), "content": "x"})
		return modeltest.Step{
			Text: fmt.Sprintf("round %d of it", round), Pace: time.Millisecond, Reasoning: "so",
			Calls: []modeltest.Call{bash("a", "sleep 0.02; echo done"), {ID: "b", Name: "write_file", Args: string(write)}, bash("c", "sleep 0.01; seq 3")},
		}
	}
	return modeltest.Step{Text: "all of it is finished", Pace: time.Millisecond}
}

// TestKilledAtRandom kills the program, or stops it for a while and breaks its connections
// as a paused machine's are, at random points of a conversation that uses tools. Every
// message is answered exactly once, and every request to the model is valid. The short
// form has 6 points, the full one 30.
func TestKilledAtRandom(t *testing.T) {
	points := 6
	if os.Getenv("AEGIS_STRESS") != "" {
		points = 30
	}
	for name, format := range map[string]map[string]any{"responses": {"api": "responses"}, "messages": {"model": "anthropic/claude"}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, task)
			conf := map[string]any{"model": "openai/gpt", "base_url": w.model.URL + "/v1", "api_key_env": "OPENAI_API_KEY"}
			maps.Copy(conf, format)
			if name == "messages" {
				conf["base_url"] = w.model.URL
			}
			w.configure(conf)
			p := w.launch()
			for i := range (points + 1) / 2 {
				id := w.host.say(fmt.Sprint("task ", i))
				pause := time.Duration(rand.IntN(250)) * time.Millisecond
				time.Sleep(pause)
				kind := "killed"
				if rand.IntN(3) == 0 {
					kind = "paused"
					_ = p.cmd.Process.Signal(syscall.SIGSTOP)
					w.host.CloseClientConnections()
					w.model.CloseClientConnections()
					time.Sleep(50 * time.Millisecond)
					_ = p.cmd.Process.Signal(syscall.SIGCONT)
				} else {
					p.kill()
					p = w.launch()
				}
				got := w.host.answer(id)
				t.Logf("%s after %v: %q", kind, pause, got.Text)
				if got.Error != "" || !strings.HasSuffix(got.Text, "all of it is finished") {
					t.Errorf("%s after %v: %+v", kind, pause, got)
				}
			}
			id := w.host.say("once more")
			if got := w.host.answer(id); got.Error != "" {
				t.Errorf("the next message: %+v", got)
			}
			if n, want := w.host.count(api.FrameDone), (points+1)/2+1; n != want {
				t.Errorf("%d answers to %d messages", n, want)
			}
			p.kill()
			if leftovers := marked(t); leftovers != "" {
				t.Errorf("processes live on:\n%s", leftovers)
			}
		})
	}
}

// marked returns the commands of agents that live, other than what is of a killed agent
// and about to end by itself.
func marked(t *testing.T) string {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		var found []string
		entries, _ := filepath.Glob("/proc/[0-9]*/environ")
		for _, e := range entries {
			if env, err := os.ReadFile(e); err == nil && strings.Contains(string(env), "AEGIS_AGENT_CALL=") && strings.Contains(string(env), t.Name()) {
				found = append(found, e)
			}
		}
		if len(found) == 0 || time.Now().After(deadline) {
			return strings.Join(found, "\n")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// maxIdle is the resident memory that an idle agent may have, in kilobytes.
const maxIdle = 30 << 10

func TestIdleMemory(t *testing.T) {
	w := newWorld(t, task)
	p := w.launch()
	id := w.host.say("task")
	w.host.answer(id)
	w.host.until("the machine to be let go", func() bool { return w.host.leased > 0 && w.host.leases == 0 })
	idle := 0
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if idle = p.rss(); idle <= maxIdle {
			break
		}
	}
	t.Logf("idle after a conversation: %d KB", idle)
	if idle > maxIdle {
		t.Errorf("an idle agent has %d KB, at most %d", idle, maxIdle)
	}
}

// TestFirstDelta logs how long the agent itself takes until its user hears something.
func TestFirstDelta(t *testing.T) {
	w := newWorld(t, func(modeltest.Request) modeltest.Step { return modeltest.Step{Text: "hello"} })
	w.launch()
	w.host.answer(w.host.say("warm up"))
	var all []time.Duration
	for range 20 {
		began := time.Now()
		id := w.host.say("hi")
		w.host.until("a delta", func() bool {
			for _, f := range w.host.frames {
				if f.Type == api.FrameDelta && strings.Contains(string(f.Payload), `"`+id+`"`) {
					return true
				}
			}
			return false
		})
		all = append(all, time.Since(began))
		w.host.answer(id)
	}
	t.Logf("from the message to the first delta: %v", all)
}
