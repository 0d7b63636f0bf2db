package script

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// compat has a check for each name, field, wording and status that SPEC marks (compat) and
// that this version has, in the words and the order of SPEC. The checks build on those
// before them.
//
//nolint:thelper // each is a test, not a helper
var compat = []struct {
	spec  string
	check func(t *testing.T, u *user)
}{
	{"2 aegis finds aegisd beside itself", func(t *testing.T, _ *user) {
		dir := filepath.Join(t.TempDir(), "elsewhere")
		aegis, err := exec.LookPath("aegis")
		if err != nil {
			t.Fatal(err)
		}
		self, err := os.ReadFile(aegis)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"aegis", "aegisd"} {
			if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, name), self, 0o700)); err != nil {
				t.Fatal(err)
			}
		}
		home := filepath.Join(t.TempDir(), "home")
		for _, command := range []string{"up", "down"} {
			cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "aegis"), command)
			cmd.Env = []string{"AEGIS_HOME=" + home} // no PATH
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("aegis %s: %v\n%s", command, err, out)
			}
		}
	}},
	{"2 aegisd needs no arguments", func(t *testing.T, _ *user) {
		other := &user{t: t, home: filepath.Join(t.TempDir(), "home")}
		other.env = append(os.Environ(), "AEGIS_HOME="+other.home)
		cmd := exec.CommandContext(t.Context(), "aegisd")
		cmd.Env = other.env
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			if status, _ := other.cli("status"); status == 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("it does not serve")
			}
		}
		other.ok("down")
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}},
	{"3 aegisd.sock is 0600", func(t *testing.T, u *user) {
		fi, err := os.Stat(filepath.Join(u.home, "aegisd.sock"))
		if err != nil || fi.Mode() != os.ModeSocket|0o600 {
			t.Errorf("%v, %v", fi.Mode(), err)
		}
	}},
	{"3 data/aegisd.pid", func(t *testing.T, u *user) {
		b, err := os.ReadFile(filepath.Join(u.home, "data", "aegisd.pid"))
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil || fmt.Sprint(u.object("GET", "/v1/status", "", 200)["pid"]) != strconv.Itoa(pid) {
			t.Errorf("it holds %q", b)
		}
	}},
	{"4 instance start: Instance started: ID, Handle:", func(t *testing.T, u *user) {
		like(t, "stdout", u.ok("instance", "start", "--name", "web", "--", "sh", "-c", "echo out; echo err >&2; sleep 1000"),
			`\AInstance started: inst-[0-9a-z]+\nHandle: web\n\z`)
	}},
	{"4 instance start --name H alone: Instance restarted: ID", func(t *testing.T, u *user) {
		u.ok("instance", "stop", "web")
		like(t, "stdout", u.ok("instance", "start", "--name", "web"), `\AInstance restarted: inst-[0-9a-z]+\n`)
	}},
	{"5 POST /v1/instances: 201 {id,state:starting,command,handle,image_ref,kit}", func(t *testing.T, u *user) {
		got := u.object("POST", "/v1/instances", `{"command":["sleep","1000"],"env":{"A":"1"},"handle":"api","image_ref":"","memory_mb":256,"vcpus":2}`, 201)
		has(t, got, "id,state,command,handle,image_ref,kit", map[string]any{"state": "starting", "handle": "api", "command": []any{"sleep", "1000"}})
		like(t, "id", got["id"].(string), `^inst-`)
		u.ok("exec", "api", "--", "true") // waits for starting
	}},
	{"5 a handle that exists: stopped -> start, 200; else 409", func(t *testing.T, u *user) {
		u.refused("POST", "/v1/instances", `{"handle":"api","command":["x"]}`, 409)
		u.ok("instance", "disable", "api")
		has(t, u.object("POST", "/v1/instances", `{"handle":"api"}`, 200), "id,state,command,handle,image_ref,kit",
			map[string]any{"state": "starting", "handle": "api", "command": []any{"sleep", "1000"}})
		u.ok("exec", "api", "--", "true") // it is enabled again
	}},
	{"5 400 bad handle (^[a-zA-Z0-9][a-zA-Z0-9._-]*$) or no command", func(t *testing.T, u *user) {
		for _, handle := range []string{"-a", ".a", "a/b", "a b", "ä", "a:b", "_"} {
			u.refused("POST", "/v1/instances", fmt.Sprintf(`{"handle":%q,"command":["x"]}`, handle), 400)
		}
		u.refused("POST", "/v1/instances", `{"handle":"new"}`, 400)
		u.refused("POST", "/v1/instances", `{"command":[]}`, 400)
		has(t, u.object("POST", "/v1/instances", `{"handle":"0a.B_c-","command":["sleep","1000"]}`, 201), "id", nil)
		u.object("DELETE", "/v1/instances/0a.B_c-", "", 200)
	}},
	{"5 handles are unique, also under concurrency", func(t *testing.T, u *user) {
		statuses := make([]int, 8)
		var wg sync.WaitGroup
		for i := range statuses {
			wg.Go(func() {
				statuses[i], _ = u.call("POST", "/v1/instances", `{"handle":"one","command":["sleep","1000"]}`)
			})
		}
		wg.Wait()
		slices.Sort(statuses)
		if !slices.Equal(statuses, []int{201, 409, 409, 409, 409, 409, 409, 409}) {
			t.Errorf("statuses %v", statuses)
		}
		u.object("DELETE", "/v1/instances/one", "", 200)
	}},
	{"5 GET /v1/instances: the fields of a line", func(t *testing.T, u *user) {
		u.ok("instance", "stop", "api")
		i := slices.IndexFunc(u.list(""), func(i map[string]any) bool { return i["handle"] == "api" })
		line := u.list("")[i]
		has(t, line, "id,state,enabled,command,created_at,updated_at,last_active_at,active_connections,handle,image_ref,kit,stopped_at,endpoints",
			map[string]any{"state": "stopped", "enabled": true, "active_connections": 0, "endpoints": []any{}})
		for _, name := range []string{"created_at", "updated_at", "last_active_at", "stopped_at"} {
			isTime(t, line[name])
		}
		for _, state := range []string{"running", "stopped", "paused", "starting"} {
			for _, line := range u.list("?state=" + state) {
				has(t, line, "id", map[string]any{"state": state})
			}
		}
	}},
	{"5 sorted running, starting, paused, stopped, disabled", func(t *testing.T, u *user) { // starting: package httpapi
		for _, name := range []string{"off", "doze"} {
			u.ok("instance", "start", "--name", name, "--", "sleep", "1000")
		}
		u.ok("instance", "disable", "off")
		u.ok("instance", "pause", "doze")
		u.ok("instance", "start", "--name", "last", "--", "sleep", "1000")
		var order []any
		for _, line := range u.list("") {
			order = append(order, line["handle"])
		}
		if !slices.Equal(order, []any{"web", "last", "doze", "api", "off"}) {
			t.Errorf("order %v", order)
		}
	}},
	{"5 GET /v1/instances/{id}, {id} is id or handle; 404", func(t *testing.T, u *user) {
		got := u.object("GET", "/v1/instances/web", "", 200)
		has(t, got, "id,state,handle,harness_version,hibernated,driver,isolation,memory_used,disk_used", map[string]any{"hibernated": false})
		has(t, u.object("GET", "/v1/instances/"+got["id"].(string), "", 200), "id", map[string]any{"handle": "web"})
		u.refused("GET", "/v1/instances/nobody", "", 404)
	}},
	{"5 start, stop, restart, disable, pause, resume: 200 {status}, 409 when it could not", func(t *testing.T, u *user) {
		for _, step := range []struct{ verb, status string }{
			{"pause", "paused"}, {"resume", "running"}, {"restart", "restarting"}, {"stop", "stopped"}, {"start", "starting"}, {"disable", "disabled"},
		} {
			has(t, u.object("POST", "/v1/instances/last/"+step.verb, "", 200), "status", map[string]any{"status": step.status})
		}
		u.refused("POST", "/v1/instances/last/pause", "", 409)
		u.refused("POST", "/v1/instances/last/resume", "", 409)
		u.refused("POST", "/v1/instances/nobody/start", "", 404)
	}},
	{"5 DELETE: {status:deleted}", func(t *testing.T, u *user) {
		has(t, u.object("DELETE", "/v1/instances/last", "", 200), "status", map[string]any{"status": "deleted"})
		u.refused("DELETE", "/v1/instances/last", "", 404)
	}},
	{"5 POST /v1/instances/prune?older_than=: {pruned,ids}", func(t *testing.T, u *user) {
		has(t, u.object("POST", "/v1/instances/prune?older_than=7d", "", 200), "pruned,ids", map[string]any{"pruned": 0, "ids": []any{}})
		got := u.object("POST", "/v1/instances/prune?older_than=0", "", 200)
		if ids, _ := got["ids"].([]any); got["pruned"] != 2.0 || len(ids) != 2 { // api and off
			t.Errorf("%v", got)
		}
		u.refused("POST", "/v1/instances/prune?older_than=soon", "", 400)
	}},
	{"5 POST .../exec: {exec_id,started_at}, log entries, {exec_id,exit_code,done:true}", func(t *testing.T, u *user) {
		status, lines := u.call("POST", "/v1/instances/doze/exec", `{"command":["sh","-c","echo one; exit 7"],"env":{"A":"1"}}`) // wakes
		if status != 200 || len(lines) != 3 {
			t.Fatalf("%d %q", status, lines)
		}
		first, entry, last := decoded[map[string]any](t, lines[0]), decoded[map[string]any](t, lines[1]), decoded[map[string]any](t, lines[2])
		has(t, first, "exec_id,started_at", nil)
		like(t, "exec_id", first["exec_id"].(string), `^exec-`)
		isTime(t, first["started_at"])
		has(t, entry, "ts,stream,line,source,instance_id,exec_id", map[string]any{"stream": "stdout", "line": "one", "source": "exec", "exec_id": first["exec_id"]})
		has(t, last, "exec_id,exit_code,done", map[string]any{"exec_id": first["exec_id"], "exit_code": 7, "done": true})
	}},
	{"5 exec: 409 disabled, 503 wake failed", func(t *testing.T, u *user) {
		u.ok("instance", "disable", "doze")
		u.refused("POST", "/v1/instances/doze/exec", `{"command":["true"]}`, 409)
		broken := newUser(t, faultVariable+"=no memory")
		broken.t = t
		broken.object("POST", "/v1/instances", `{"handle":"x","command":["sleep","1000"]}`, 201)
		has(t, broken.object("POST", "/v1/instances/x/exec", `{"command":["true"]}`, 503), "error,hint", map[string]any{"code": "exhausted"})
	}},
	{"5 GET .../logs: {ts,stream,line,source,instance_id,exec_id?}; process exited (code=N)", func(t *testing.T, u *user) {
		id := u.object("POST", "/v1/instances", `{"handle":"job","command":["sh","-c","echo out; sleep 0.1; echo err >&2; exit 5"]}`, 201)["id"]
		u.until("job", "stopped")
		_, lines := u.call("GET", "/v1/instances/job/logs", "")
		if len(lines) != 3 {
			t.Fatalf("%q", lines)
		}
		slices.SortFunc(lines, func(a, b string) int { // the order of two streams is not promised
			return strings.Compare(fmt.Sprint(decoded[map[string]any](t, a)["line"]), fmt.Sprint(decoded[map[string]any](t, b)["line"]))
		})
		for i, want := range []map[string]any{
			{"stream": "stderr", "line": "err", "source": "server"},
			{"stream": "stdout", "line": "out", "source": "server"},
			{"stream": "stdout", "line": "process exited (code=5)", "source": "system", "end": true},
		} {
			entry := decoded[map[string]any](t, lines[i])
			has(t, entry, "ts,stream,line,source,instance_id", want)
			has(t, entry, "instance_id", map[string]any{"instance_id": id})
			isTime(t, entry["ts"])
			if _, ok := entry["exec_id"]; ok {
				t.Errorf("an exec_id in %s", lines[i])
			}
		}
		if _, lines = u.call("GET", "/v1/instances/job/logs?tail=1", ""); len(lines) != 1 || !strings.Contains(lines[0], "process exited (code=5)") {
			t.Errorf("tail=1: %q", lines)
		}
		if _, lines = u.call("GET", "/v1/instances/job/logs?since=2000-01-01T00:00:00Z&follow=false", ""); len(lines) != 3 {
			t.Errorf("since: %q", lines)
		}
		u.object("DELETE", "/v1/instances/job", "", 200)
		_, lines = u.call("POST", "/v1/instances/web/exec", `{"command":["echo","of exec"]}`)
		exec := decoded[map[string]any](t, lines[0])["exec_id"].(string)
		_, lines = u.call("GET", "/v1/instances/web/logs?exec_id="+exec, "")
		if len(lines) != 1 {
			t.Fatalf("%q", lines)
		}
		has(t, decoded[map[string]any](t, lines[0]), "exec_id", map[string]any{"line": "of exec", "source": "exec", "exec_id": exec})
		u.refused("GET", "/v1/instances/web/logs?since=yesterday", "", 400)
	}},
	{"5 POST /v1/instances: workspace; GET: workspace; GET .../workspace/tree: [{name,is_dir,size}]; GET/POST .../workspace; POST .../blob: {blob,media_type,size}", func(t *testing.T, u *user) {
		dir := t.TempDir()
		u.object("POST", "/v1/instances", `{"handle":"files","command":["sleep","1000"],"workspace":"`+dir+`"}`, 201)
		has(t, u.object("GET", "/v1/instances/files", "", 200), "workspace,workspace_dir", map[string]any{"workspace": dir, "workspace_dir": dir})
		u.object("POST", "/v1/instances/files/workspace?path=sub/a.txt", "text", 200)
		if b, err := os.ReadFile(filepath.Join(dir, "sub/a.txt")); err != nil || string(b) != "text" {
			t.Errorf("%q, %v", b, err)
		}
		if _, lines := u.call("GET", "/v1/instances/files/workspace/tree?path=sub", ""); len(lines) != 1 || lines[0] != `[{"name":"a.txt","is_dir":false,"size":4}]` {
			t.Errorf("%q", lines)
		}
		if status, lines := u.call("GET", "/v1/instances/files/workspace?path=sub/a.txt", ""); status != 200 || len(lines) != 1 || lines[0] != "text" {
			t.Errorf("%d, %q", status, lines)
		}
		has(t, u.object("POST", "/v1/instances/files/blob", "GIF89a and so on", 200), "blob,media_type,size", map[string]any{"media_type": "image/gif", "size": 16})
		u.refused("GET", "/v1/instances/files/workspace?path=../x", "", 403)
		u.refused("POST", "/v1/instances/files/workspace?path=large", strings.Repeat("x", 10<<20+1), 413)
		u.refused("POST", "/v1/instances", `{"command":["true"],"workspace":"`+dir+`/none"}`, 404)
		u.ok("instance", "delete", "files")
	}},
	{"5 a boot failure is a system line and a terminal marker", func(t *testing.T, u *user) {
		u.object("POST", "/v1/instances", `{"handle":"bad","command":["no-such-command"]}`, 201)
		u.until("bad", "stopped")
		_, lines := u.call("GET", "/v1/instances/bad/logs", "")
		if len(lines) != 1 {
			t.Fatalf("%q", lines)
		}
		has(t, decoded[map[string]any](t, lines[0]), "ts,line", map[string]any{"source": "system", "end": true})
		u.object("DELETE", "/v1/instances/bad", "", 200)
	}},
	{"5 GET /v1/status: {status:running,version,backend,capabilities}", func(t *testing.T, u *user) {
		has(t, u.object("GET", "/v1/status", "", 200), "status,version,backend,capabilities,isolation", map[string]any{"status": "running"})
	}},
	{"5 errors: {error} plus code and hint", func(t *testing.T, u *user) {
		has(t, u.object("GET", "/v1/instances/nobody", "", 404), "error,code,hint", map[string]any{"code": "not_found"})
		u.refused("GET", "/v1/nothing", "", 404)
		u.refused("POST", "/v1/instances", `{`, 400)
	}},
	{"6 states stopped, starting, running, paused with enabled and hibernated", func(t *testing.T, u *user) {
		want := func(state string, enabled bool) {
			t.Helper()
			has(t, u.object("GET", "/v1/instances/web", "", 200), "hibernated", map[string]any{"state": state, "enabled": enabled})
		}
		u.object("POST", "/v1/instances/web/stop", "", 200)
		want("stopped", true)
		u.object("POST", "/v1/instances/web/start", "", 200)
		want("running", true)
		u.object("POST", "/v1/instances/web/pause", "", 200)
		want("paused", true)
		u.object("POST", "/v1/instances/web/disable", "", 200)
		want("stopped", false)
		hung := newUser(t, faultVariable+"=kernel does not boot")
		hung.t = t
		hung.object("POST", "/v1/instances", `{"handle":"x","command":["sleep","1000"]}`, 201)
		has(t, hung.object("GET", "/v1/instances/x", "", 200), "id", map[string]any{"state": "starting", "enabled": true})
	}},
}

func TestCompat(t *testing.T) {
	u := newUser(t)
	for _, c := range compat {
		if !t.Run(c.spec, func(t *testing.T) {
			now := *u
			now.t = t
			c.check(t, &now)
		}) {
			t.Fatal("what follows builds on this")
		}
	}
}
