package script

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// model is somebody who uses AegisVM through the program aegis-mcp.
type model struct {
	*user
	session  *mcp.ClientSession
	server   *exec.Cmd
	stdin    io.Closer // of the server
	progress chan string
}

// newModel starts aegis-mcp in a home without a daemon.
func newModel(t *testing.T) *model {
	t.Helper()
	home := filepath.Join(t.TempDir(), "home")
	m := &model{
		user:     &user{t: t, home: home, env: append(os.Environ(), "AEGIS_HOME="+home, "AEGIS_ROUTER=off")},
		progress: make(chan string, 10000),
	}
	m.server = exec.Command("aegis-mcp") // ends with its stdin
	m.server.Env, m.server.Stderr = m.env, t.Output()
	in, err := m.server.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := m.server.StdoutPipe()
	if err := errors.Join(err, m.server.Start()); err != nil {
		t.Fatal(err)
	}
	m.stdin = in
	c := mcp.NewClient(&mcp.Implementation{Name: "test"}, &mcp.ClientOptions{
		ProgressNotificationHandler: func(_ context.Context, req *mcp.ProgressNotificationClientRequest) { m.progress <- req.Params.Message },
	})
	if m.session, err = c.Connect(t.Context(), &mcp.IOTransport{Reader: out, Writer: in}, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = m.session.Close() // closes its stdin
		if err := m.server.Wait(); err != nil {
			t.Errorf("aegis-mcp: %v", err)
		}
		down := exec.Command("aegis", "down") // the test's context has ended
		down.Env = m.env
		if out, err := down.CombinedOutput(); err != nil {
			t.Errorf("aegis down: %v\n%s", err, out)
		}
	})
	return m
}

// args are the arguments of a tool.
type args map[string]any

// try calls a tool and returns what a model reads, and the structured result.
func (m *model) try(ctx context.Context, tool string, in args) (said string, out map[string]any, failed bool, err error) {
	params := &mcp.CallToolParams{Name: tool, Arguments: in}
	params.SetProgressToken(tool)
	res, err := m.session.CallTool(ctx, params)
	if err != nil {
		return "", nil, false, err
	}
	for _, c := range res.Content {
		if text, ok := c.(*mcp.TextContent); ok {
			said += text.Text //nolint:perfsprint // one, as a rule
		}
	}
	if !res.IsError {
		b, err := json.Marshal(res.StructuredContent)
		if err := errors.Join(err, json.Unmarshal(b, &out)); err != nil {
			return "", nil, false, err
		}
	}
	return said, out, res.IsError, nil
}

// do calls a tool that must not fail.
func (m *model) do(tool string, in args) (out map[string]any) {
	m.t.Helper()
	said, out, failed, err := m.try(m.t.Context(), tool, in)
	if err != nil || failed {
		m.t.Fatalf("%s: %v %s", tool, err, said)
	}
	return out
}

// refused calls a tool that must fail with a result that says all of want.
func (m *model) refused(tool string, in args, want ...string) {
	m.t.Helper()
	said, _, failed, err := m.try(m.t.Context(), tool, in)
	if err != nil || !failed {
		m.t.Errorf("%s %v: %v, %q is no error", tool, in, err, said)
		return
	}
	for _, w := range want {
		if !strings.Contains(said, w) {
			m.t.Errorf("%s %v: %q does not say %q", tool, in, said, w)
		}
	}
}

// TestMCP follows a model from nothing to a deleted instance. The first call starts the
// daemon.
func TestMCP(t *testing.T) {
	m := newModel(t)
	var wg sync.WaitGroup
	for range 4 { // together, and one daemon is started
		wg.Go(func() {
			if _, out, failed, err := m.try(t.Context(), "instance_list", nil); err != nil || failed || len(out["instances"].([]any)) != 0 {
				t.Errorf("list: %v, %v", err, out)
			}
		})
	}
	wg.Wait()
	m.refused("exec", args{"name": "box", "command": []string{"true"}}, `no instance "box"`, "instance_list")
	m.refused("exec", args{"name": "", "command": []string{"true"}}, "name")
	m.refused("instance_start", args{}, "nothing to start")
	m.refused("instance_start", args{"name": "box", "command": []string{"sleep", "1"}, "expose": []any{"80/udp"}}, "protocol")
	start := m.do("instance_start", args{"name": "box", "command": []string{"sleep", "1000"}, "env": args{"A": "1"}, "expose": []any{80, "81/tcp"}})
	if start["handle"] != "box" || start["state"] != "running" || len(start["endpoints"].([]any)) != 2 {
		t.Errorf("start = %v", start)
	}
	t.Run("exec", func(t *testing.T) { m.with(t).testExec() })
	t.Run("output", func(t *testing.T) { m.with(t).testOutput() })
	t.Run("cancel", func(t *testing.T) { m.with(t).testCancel() })
	t.Run("ports", func(t *testing.T) { m.with(t).testPorts() })
	t.Run("states", func(t *testing.T) { m.with(t).testStates() })
	t.Run("secrets", func(t *testing.T) { m.with(t).testSecrets() })
	m.refused("instance_start", args{"name": "box", "command": []string{"true"}}, "box")
	if out := m.do("instance_delete", args{"name": "box"}); out["status"] != "deleted" {
		t.Errorf("delete = %v", out)
	}
	m.refused("instance_info", args{"name": "box"}, "no instance")
}

// with gives a part of a test its own T.
func (m *model) with(t *testing.T) *model {
	t.Helper()
	part, u := *m, *m.user
	u.t, part.user = t, &u
	return &part
}

func (m *model) testExec() {
	out := m.do("exec", args{"name": "box", "command": []string{"sh", "-c", "echo out; echo err >&2; exit 7"}})
	if out["exit_code"] != 7.0 || out["stdout"] != "out\n" || out["stderr"] != "err\n" || out["truncated"] != false {
		m.t.Errorf("exec = %v", out)
	}
	out = m.do("exec", args{"name": "box", "command": []string{"env"}, "env": args{"B": "2"}})
	if s := out["stdout"].(string); !strings.Contains(s, "A=1\n") || !strings.Contains(s, "B=2\n") {
		m.t.Errorf("environment: %q", s)
	}
	if out = m.do("exec", args{"name": "box", "command": []string{"cat"}, "stdin": "a\nb"}); out["stdout"] != "a\nb" {
		m.t.Errorf("stdin: %v", out)
	}
	if out = m.do("exec", args{"name": "box", "command": []string{"sleep", "1000"}, "timeout_s": 1}); out["timed_out"] != true || out["exit_code"] != 124.0 {
		m.t.Errorf("timeout: %v", out)
	}
	m.refused("exec", args{"name": "box", "command": []string{"no-such-command"}}, "no-such-command")
}

// testOutput: what does not fit a model's context is cut, and logs has it.
func (m *model) testOutput() {
	const total = 2 << 20
	said, out, _, err := m.try(m.t.Context(), "exec", args{"name": "box", "command": []string{"yes", strconv.Itoa(total)}})
	if err != nil || len(said) > 64<<10 || out["truncated"] != true || out["stdout_bytes"] != float64(total) {
		m.t.Fatalf("%v: %d bytes said, %v of %v, truncated %v", err, len(said), out["stdout_bytes"], total, out["truncated"])
	}
	id := out["exec_id"].(string)
	if !strings.Contains(said, "bytes left out") || !strings.Contains(said, id) {
		m.t.Errorf("it does not say what is left out and where it is: %.100s", said[len(said)-200:])
	}
	logs := m.do("logs", args{"name": "box", "exec_id": id, "tail": 3})
	if lines := logs["lines"].([]any); len(lines) != 3 || logs["truncated"] != true {
		m.t.Errorf("logs of the exec: %v", logs)
	}
	logs = m.do("logs", args{"name": "box", "exec_id": id, "from_line": 10, "tail": 5})
	if lines := logs["lines"].([]any); len(lines) != 5 || logs["next_line"] != 15.0 {
		m.t.Errorf("logs from the 10th line: %v", logs)
	}
	select {
	case <-m.progress:
	case <-time.After(patience):
		m.t.Error("nothing was told meanwhile")
	}
}

// testCancel: six calls side by side, of which one is called off. Its program ends.
func (m *model) testCancel() {
	ctx, cancel := context.WithCancel(m.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, _, _, err := m.try(ctx, "exec", args{"name": "box", "command": []string{"sleep", "1000"}}); !errors.Is(err, context.Canceled) {
			m.t.Errorf("the call that was cancelled: %v", err)
		}
	})
	m.holds(1)
	for i := range 5 {
		wg.Go(func() {
			if out := m.do("exec", args{"name": "box", "command": []string{"echo", strconv.Itoa(i)}}); out["stdout"] != fmt.Sprintln(i) {
				m.t.Errorf("exec %d: %v", i, out)
			}
		})
	}
	cancel()
	wg.Wait()
	m.holds(0)
}

// holds waits until the instance has so many reasons to be awake.
func (m *model) holds(want int) {
	m.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		held, _ := m.do("instance_info", args{"name": "box"})["holds"].([]any)
		if len(held) == want {
			return
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("held by %v, want %d", held, want)
		}
	}
}

func (m *model) testPorts() {
	out := m.do("instance_expose", args{"name": "box", "port": 8000})
	if out["guest_port"] != 8000.0 || out["url"] != fmt.Sprintf("http://127.0.0.1:%v", out["public_port"]) {
		m.t.Errorf("expose = %v", out)
	}
	if again := m.do("instance_expose", args{"name": "box", "port": 8000}); again["public_port"] != out["public_port"] {
		m.t.Errorf("exposed again: %v, then %v", out, again)
	}
	m.do("instance_unexpose", args{"name": "box", "guest_port": 8000})
	m.refused("instance_unexpose", args{"name": "box", "guest_port": 8000}, "8000")
	m.refused("instance_expose", args{"name": "box", "port": 70000}, "port")
}

func (m *model) testStates() {
	for _, step := range []struct{ tool, state string }{
		{"instance_pause", "paused"},
		{"instance_resume", "running"},
		{"instance_restart", "running"},
		{"instance_stop", "stopped"},
		{"instance_resume", "running"},
		{"instance_disable", "stopped"},
	} {
		if out := m.do(step.tool, args{"name": "box"}); out["state"] != step.state {
			m.t.Errorf("%s: %v", step.tool, out)
		}
	}
	m.refused("exec", args{"name": "box", "command": []string{"true"}}, "disabled")
	if list := m.do("instance_list", args{"state": "disabled"})["instances"].([]any); len(list) != 1 {
		m.t.Errorf("disabled ones: %v", list)
	}
	if out := m.do("instance_start", args{"name": "box"}); out["restarted"] != true {
		m.t.Errorf("start again: %v", out)
	}
	if lines := m.do("logs", args{"name": "box", "match": "exited|stopped|started"})["lines"].([]any); len(lines) == 0 {
		m.t.Error("the log has nothing of all this")
	}
}

func (m *model) testSecrets() {
	m.do("secret_set", args{"key": "TOKEN", "value": "hunter2"})
	said, out, _, err := m.try(m.t.Context(), "secret_list", nil)
	if err != nil || len(out["secrets"].([]any)) != 1 || strings.Contains(said, "hunter2") {
		m.t.Errorf("list: %v, %s", err, said)
	}
	m.do("secret_delete", args{"key": "TOKEN"})
	m.refused("secret_delete", args{"key": "TOKEN"}, "TOKEN")
}

// TestMCPEnds: a server ends by itself when its client goes, and on a signal, with
// programs in VMs still running, which end too.
func TestMCPEnds(t *testing.T) {
	for name, leave := range map[string]func(*model) error{
		"stdin":   func(m *model) error { return m.stdin.Close() },
		"SIGTERM": func(m *model) error { return m.server.Process.Signal(syscall.SIGTERM) },
	} {
		t.Run(name, func(t *testing.T) {
			m := newModel(t)
			m.do("instance_start", args{"name": "box", "command": []string{"sleep", "1000"}})
			called := make(chan error, 1)
			go func() {
				_, _, _, err := m.try(t.Context(), "exec", args{"name": "box", "command": []string{"sleep", "1000"}})
				called <- err
			}()
			m.holds(1)
			if err := leave(m); err != nil {
				t.Error(err)
			}
			if err := <-called; err == nil {
				t.Error("the call that was under way has a result")
			}
			var info struct{ Holds []any }
			for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
				if err := json.Unmarshal([]byte(m.ok("instance", "info", "--json", "box")), &info); err != nil {
					t.Fatal(err)
				}
				if len(info.Holds) == 0 {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("still held: %v", info.Holds)
				}
			}
		})
	}
}
