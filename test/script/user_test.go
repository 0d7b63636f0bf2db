package script

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// user is somebody whose scripts know AegisVM by what SPEC marks (compat): the CLI's words
// and statuses, paths, and JSON on the socket, all taken literally and without this
// repository's types.
type user struct {
	t    *testing.T
	home string
	env  []string
}

func newUser(t *testing.T, env ...string) *user {
	t.Helper()
	home := filepath.Join(t.TempDir(), "home")
	u := &user{t: t, home: home, env: append(append(os.Environ(), "AEGIS_HOME="+home), env...)}
	u.ok("up")
	t.Cleanup(func() {
		down := exec.Command("aegis", "down") // the test's context has ended
		down.Env = u.env
		if out, err := down.CombinedOutput(); err != nil {
			t.Errorf("aegis down: %v\n%s", err, out)
		}
	})
	return u
}

// cli runs a command and returns its status and stdout.
func (u *user) cli(args ...string) (int, string) {
	u.t.Helper()
	cmd := exec.CommandContext(u.t.Context(), "aegis", args...)
	cmd.Env = u.env
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), string(out)
	} else if err != nil {
		u.t.Fatal(err)
	}
	return 0, string(out)
}

func (u *user) ok(args ...string) string {
	u.t.Helper()
	status, out := u.cli(args...)
	if status != 0 {
		u.t.Fatalf("aegis %q: status %d", args, status)
	}
	return out
}

// call makes a request and returns the answer's status and the lines of its body.
func (u *user) call(method, path, body string) (int, []string) {
	u.t.Helper()
	hc := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return net.Dial("unix", filepath.Join(u.home, "aegisd.sock"))
		},
	}}
	req, err := http.NewRequestWithContext(u.t.Context(), method, "http://x"+path, strings.NewReader(body))
	if err != nil {
		u.t.Fatal(err)
	}
	resp, err := hc.Do(req)
	if err != nil {
		u.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		u.t.Fatal(err)
	}
	var lines []string
	for in := bufio.NewScanner(bytes.NewReader(b)); in.Scan(); {
		lines = append(lines, in.Text())
	}
	return resp.StatusCode, lines
}

// object makes a request that must be answered with a status and one JSON object.
func (u *user) object(method, path, body string, status int) map[string]any {
	u.t.Helper()
	got, lines := u.call(method, path, body)
	if got != status || len(lines) != 1 {
		u.t.Fatalf("%s %s %s: %d %q, want %d and one line", method, path, body, got, lines, status)
	}
	return decoded[map[string]any](u.t, lines[0])
}

// until waits for a state of an instance.
func (u *user) until(ref, state string) {
	u.t.Helper()
	for deadline := time.Now().Add(patience); u.object("GET", "/v1/instances/"+ref, "", 200)["state"] != state; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			u.t.Fatalf("%s does not come to be %s", ref, state)
		}
	}
}

// list returns the answer to GET /v1/instances.
func (u *user) list(query string) []map[string]any {
	u.t.Helper()
	_, lines := u.call("GET", "/v1/instances"+query, "")
	return decoded[[]map[string]any](u.t, strings.Join(lines, ""))
}

// refused makes a request that must be answered with a status and an error.
func (u *user) refused(method, path, body string, status int) {
	u.t.Helper()
	if e, _ := u.object(method, path, body, status)["error"].(string); e == "" {
		u.t.Errorf("%s %s: no error in the answer", method, path)
	}
}

func decoded[T any](t *testing.T, line string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(line), &v); err != nil {
		t.Fatalf("%v in %q", err, line)
	}
	return v
}

// has checks that an object has fields, and that those that are given have their values.
func has(t *testing.T, got map[string]any, names string, values map[string]any) {
	t.Helper()
	for name := range strings.SplitSeq(names, ",") {
		if _, ok := got[name]; !ok {
			t.Errorf("no field %s in %v", name, got)
		}
	}
	for name, want := range values {
		if fmt.Sprint(got[name]) != fmt.Sprint(want) {
			t.Errorf("%s = %v, want %v", name, got[name], want)
		}
	}
}

func like(t *testing.T, what, got, form string) {
	t.Helper()
	if !regexp.MustCompile(form).MatchString(got) {
		t.Errorf("%s is %q, want %s", what, got, form)
	}
}

func isTime(t *testing.T, v any) {
	t.Helper()
	s, _ := v.(string)
	if _, err := time.Parse(time.RFC3339Nano, s); err != nil {
		t.Error(err)
	}
}
