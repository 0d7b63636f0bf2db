//go:build integration

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
)

// trail is what secrets could have left of themselves.
type trail struct {
	*host

	values  map[string]string // what is looked for, by who was given it
	sidecar map[string]bool   // whether sidecars have it in their environment, by right
}

// TestSecretTrail gives secrets to everything that takes some, lets each of the programs end
// in the worst way, and looks for the values wherever they could have been left.
func TestSecretTrail(t *testing.T) {
	h := &trail{
		host: newHost(t),
		values: map[string]string{
			"PROGRAM": "trail-of-the-program-80d1", "EXEC": "trail-of-the-exec-f3c7", "SIDECAR": "trail-of-the-sidecar-2b6e", "OPENAI_API_KEY": "sk-trail-of-the-agent-99ac",
		},
		sidecar: map[string]bool{"OPENAI_API_KEY": true},
	}
	for name, value := range h.values {
		cmd := h.aegis("secret", "set", name)
		cmd.Stdin = strings.NewReader(value)
		if r := finish(t, cmd); r.status != 0 {
			t.Fatalf("secret set: %+v", r)
		}
	}
	h.use()
	h.nowhere("in use")
	h.crash()
	h.nowhere("after crashes")

	// What was saved of a machine's memory has what was in it. It goes with its instance.
	h.ok("instance", "stop", "--hibernate", "box")
	for _, name := range []string{"box", "agent"} {
		h.ok("instance", "delete", name)
	}
	h.signal(syscall.SIGQUIT)
	h.up()
	if !strings.Contains(h.whole("data/aegisd.log"), "goroutine ") {
		t.Error("the daemon's last words are not in its log")
	}
	h.nowhere("at the end")
}

func (h *trail) whole(name string) string {
	h.t.Helper()
	b, err := os.ReadFile(filepath.Join(h.home, name))
	if err != nil {
		h.t.Fatal(err)
	}
	return string(b)
}

// use has every secret used, each in its way.
func (h *trail) use() {
	h.t.Helper()
	h.ok("instance", "start", "--name", "box", "--pause-after", "0", "--secret", "PROGRAM", "--", "sh", "-c", `echo ${#PROGRAM}; exec sleep 1000`)
	eventually(h.t, "the program has its secret", func() bool {
		return strings.Contains(h.ok("logs", "box"), strconv.Itoa(len(h.values["PROGRAM"])))
	})
	x, err := h.client().Exec(h.t.Context(), "box", api.ExecRequest{Command: []string{"sh", "-c", `echo ${#EXEC}`}, Env: map[string]string{"EXEC": h.values["EXEC"]}})
	if err != nil {
		h.t.Fatal(err)
	}
	var out strings.Builder
	if status, err := x.Stream(h.t.Context(), client.Streams{Stdout: &out}); status != 0 || err != nil || strings.TrimSpace(out.String()) != strconv.Itoa(len(h.values["EXEC"])) {
		h.t.Fatalf("exec: %d, %v, %q", status, err, out.String())
	}
	h.ok("instance", "start", "--kit", "agent", "--name", "agent", "--secret", "OPENAI_API_KEY")
	conf := filepath.Join(h.home, "kits", "agent", "gateway.json")
	port, err := net.Listen("tcp", "127.0.0.1:0") // nobody else gets the number
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = port.Close() })
	webhook := fmt.Sprintf(`{"webhook":{"listen":%q,"post_url":"http://127.0.0.1:1/","token_secret":"SIDECAR"}}`, port.Addr())
	if err := errors.Join(os.MkdirAll(filepath.Dir(conf), 0o700), os.WriteFile(conf, []byte(webhook), 0o600)); err != nil {
		h.t.Fatal(err)
	}
	eventually(h.t, "the sidecar has read its secret, and cannot listen", func() bool { return strings.Contains(h.ok("logs", "agent"), "cannot listen") })
	// There is no model to be reached: the agent says so, with what it was told.
	h.ok("tether", "send", "agent", "hello")
	eventually(h.t, "the agent answers", func() bool { return strings.Contains(h.ok("tether", "read", "agent"), "OpenAI") })
}

// crash ends a program, a VM and PID 1 in ways that leave words, and cores where there
// are any.
func (h *trail) crash() {
	h.t.Helper()
	h.eachProcess(func(pid int, args string) {
		limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
		if err == nil && !strings.Contains(strings.Join(strings.Fields(string(limits)), " "), "Max core file size 0 0") {
			h.t.Errorf("%s may leave a core:\n%s", args, limits)
		}
	})
	for _, end := range []string{"kill -ABRT $$", "echo c > /proc/sysrq-trigger; sleep 600", "kill -SEGV 1; sleep 600"} {
		if r := h.try("run", "--secret", "PROGRAM", "--", "sh", "-c", end); r.status == 0 || strings.Contains(r.stdout+r.stderr, h.values["PROGRAM"]) {
			h.t.Errorf("%s: %+v", end, r)
		}
	}
	vmm := h.machines()[h.info("agent").ID]
	if err := syscall.Kill(vmm, syscall.SIGABRT); err != nil {
		h.t.Fatal(err)
	}
	eventually(h.t, "the end of the VM is noticed", func() bool { return h.info("agent").State == "stopped" })
}

// nowhere looks for all values in files, processes, and answers.
func (h *trail) nowhere(when string) {
	h.t.Helper()
	places := map[string]func(value string) bool{}
	err := filepath.WalkDir(h.home, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && !h.isGuests(path) {
			places[path] = func(value string) bool { return holds(h.t, path, []byte(value)) }
		}
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	for where, text := range h.answers() {
		places[where] = func(value string) bool { return strings.Contains(text, value) }
	}
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		h.t.Fatal(err)
	}
	for _, p := range procs {
		args, _ := os.ReadFile(filepath.Join(p, "cmdline")) // it may have gone
		places[p] = func(value string) bool {
			env, _ := os.ReadFile(filepath.Join(p, "environ")) // as above
			mine := strings.Contains(string(args), "aegis-gateway")
			return strings.Contains(string(args), value) || strings.Contains(string(env), value) && (!mine || !h.sidecar[h.nameOf(value)])
		}
	}
	for name, value := range h.values {
		for where, has := range places {
			if has(value) {
				h.t.Errorf("%s: %s is in %s", when, name, where)
			}
		}
	}
	h.t.Logf("%s: %d places", when, len(places))
}

func (h *trail) nameOf(value string) string {
	for name, v := range h.values {
		if v == value {
			return name
		}
	}
	return ""
}

// isGuests tells whether a file is a guest's own: its disk. The base image was there before.
func (h *trail) isGuests(path string) bool {
	rel, err := filepath.Rel(h.home, path)
	return err != nil || strings.HasPrefix(rel, "kernel/") || strings.HasPrefix(rel, "data/images/") ||
		strings.HasPrefix(rel, "data/instances/") && filepath.Base(rel) == "disk"
}

// answers asks the API for all that it tells.
func (h *trail) answers() map[string]string {
	h.t.Helper()
	out := map[string]string{}
	paths := []string{"/v1/instances", "/v1/secrets", "/v1/secrets/PROGRAM", "/v1/status", "/v1/metrics", "/v1/kits", "/v1/snapshots", "/v1/images"}
	for _, name := range []string{"box", "agent"} {
		for _, what := range []string{"", "/logs?execs=true", "/tether/poll?after_seq=0", "/workspace/tree", "/kit-config?file=gateway.json"} {
			paths = append(paths, "/v1/instances/"+name+what)
		}
	}
	for _, path := range paths {
		status, body := h.getAPI(path)
		out["GET "+path] = body
		if status >= 500 {
			h.t.Errorf("GET %s: %d %s", path, status, body)
		}
	}
	for _, args := range [][]string{{"instance", "list"}, {"secret", "list"}, {"config", "show"}, {"status"}, {"doctor"}} {
		r := finish(h.t, h.command(context.WithoutCancel(h.t.Context()), args...))
		out["aegis "+strings.Join(args, " ")] = r.stdout + r.stderr
	}
	return out
}

// getAPI asks the API for something that ends.
func (h *host) getAPI(path string) (status int, body string) {
	h.t.Helper()
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(h.home, "aegisd.sock"))
	}
	c := &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	resp, err := c.Get("http://aegisd" + path)
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}
