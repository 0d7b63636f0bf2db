package httpapi

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/size"
)

func errorContains(err error, part string) bool { return strings.Contains(err.Error(), part) }

func TestStatus(t *testing.T) {
	c, _, _ := serve(t, &stubRunner{})
	s, err := c.Status(t.Context())
	if err != nil || s.Version != "v" {
		t.Errorf("Status = %+v, %v", s, err)
	}
}

// post sends a request as another client would, and returns status and error.
func post(t *testing.T, socket, method, path, body string, header ...string) (int, api.Error, http.Header) {
	t.Helper()
	hc := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", socket) },
	}}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://x"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := hc.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var e api.Error
	if err := json.Unmarshal(b, &e); err != nil {
		t.Errorf("%s %s: %v in %q", method, path, err, b)
	}
	return resp.StatusCode, e, resp.Header
}

func TestRefusals(t *testing.T) {
	_, _, socket := serve(t, &stubRunner{boot: func(context.Context, instance.Spec) error {
		return fault.New(fault.Exhausted, "no memory")
	}})
	up := []string{"Connection", "Upgrade", "Upgrade", api.AttachProtocol}
	for name, c := range map[string]struct {
		method, path, body string
		header             []string
		status             int
		code               fault.Kind
		msg                string
	}{
		"no such path":   {"GET", "/v1/nothing", "", nil, 404, fault.NotFound, "/v1/nothing"},
		"no such method": {"DELETE", "/v1/status", "", nil, 405, fault.Invalid, "DELETE /v1/status"},
		"no upgrade":     {"POST", "/v1/run", "{}", nil, 400, fault.Invalid, "Upgrade: aegis-attach"},
		"unknown field":  {"POST", "/v1/run", `{"comand":["x"]}`, up, 400, fault.Invalid, `unknown field "comand"`},
		"wrong type":     {"POST", "/v1/run", `{"command":"x"}`, up, 400, fault.Invalid, `field "command" takes []string, not string`},
		"not JSON":       {"POST", "/v1/run", `hello`, up, 400, fault.Invalid, "not JSON"},
		"not UTF-8":      {"POST", "/v1/run", "{\"command\":[\"\xff\"]}", up, 400, fault.Invalid, "not UTF-8"},
		"cut off":        {"POST", "/v1/run", `{"command":`, up, 400, fault.Invalid, "not JSON"},
		"no body":        {"POST", "/v1/run", "", up, 400, fault.Invalid, "no body"},
		"two values":     {"POST", "/v1/run", "{}{}", up, 400, fault.Invalid, "more than one"},
		"too large":      {"POST", "/v1/run", `{"user":"` + strings.Repeat("x", 1<<20) + `"}`, up, 413, fault.Invalid, "too large"},
		"overflow":       {"POST", "/v1/run", `{"memory_mb":9223372036854775807}`, up, 400, fault.Invalid, "memory_mb"},
		"negative":       {"POST", "/v1/run", `{"disk_mb":-1}`, up, 400, fault.Invalid, "disk_mb"},
		"the core's":     {"POST", "/v1/run", `{"command":["x"]}`, up, 507, fault.Exhausted, "no memory"},
	} {
		t.Run(name, func(t *testing.T) {
			status, e, h := post(t, socket, c.method, c.path, c.body, c.header...)
			if status != c.status || e.Code != string(c.code) || !strings.Contains(e.Error, c.msg) {
				t.Errorf("%d %+v, want %d %s ...%s...", status, e, c.status, c.code, c.msg)
			}
			if status == 405 && h.Get("Allow") != "GET" {
				t.Errorf("Allow = %q", h.Get("Allow"))
			}
		})
	}
}

// TestEveryKindHasAStatus holds the table against the list of kinds.
func TestEveryKindHasAStatus(t *testing.T) {
	for _, k := range fault.Kinds() {
		if statusOf(fault.New(k, "x")) < 400 {
			t.Errorf("%s has no status", k)
		}
	}
}

func TestPanicIsAnswered(t *testing.T) {
	var log strings.Builder
	_, _, socket := serveConfig(t, &stubRunner{boot: func(context.Context, instance.Spec) error {
		panic("nil map")
	}}, Config{Log: textLog(&log)}, os.Getuid())
	status, e, _ := post(t, socket, "POST", "/v1/run", `{"command":["x"]}`, "Connection", "Upgrade", "Upgrade", api.AttachProtocol)
	if status != 500 || e.Code != "internal" || strings.Contains(e.Error, "nil map") {
		t.Errorf("%d %+v", status, e)
	}
	if s := log.String(); !strings.Contains(s, "nil map") || !strings.Contains(s, "api_test.go") {
		t.Errorf("log has no panic with its stack:\n%s", s)
	}
}

func TestOtherUsersAreDenied(t *testing.T) {
	if os.Getuid() == 0 {
		// root may always; be another user's daemon that is called by a third one.
		_, s, _ := serveConfig(t, &stubRunner{}, Config{}, 1000)
		ctx := context.WithValue(t.Context(), peerKey{}, peer{uid: 1001})
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "/v1/status", nil)
		if err != nil {
			t.Fatal(err)
		}
		wantFault(t, s.admit(req), fault.Denied, "another user")
		return
	}
	c, _, _ := serveConfig(t, &stubRunner{}, Config{}, os.Getuid()+1)
	_, err := c.Status(t.Context())
	wantFault(t, err, fault.Denied, "another user")
}

func TestPeerUID(t *testing.T) {
	a, b := net.Pipe()
	defer func() { _, _ = a.Close(), b.Close() }()
	if _, err := peerUID(a); err == nil {
		t.Error("a pipe has no peer")
	}
	if _, err := peerOf(t.Context()); err == nil {
		t.Error("a context without a connection has no peer")
	}
}

func TestSpecOf(t *testing.T) {
	got, err := specOf(api.RunRequest{
		Command: []string{"a"}, Env: map[string]string{"K": "V"}, Secrets: []string{"S"}, Handle: "h", Workdir: "/w", User: "u", ImageRef: "i",
		MemoryMB: 1, VCPUs: 2, DiskMB: 3, Stdin: true, TTY: &api.Winsize{Cols: 4, Rows: 5},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got.Handle != "h" || got.Workdir != "/w" || got.User != "u" || got.Image != "i" || got.Memory != size.MiB || got.VCPUs != 2 ||
		got.Disk != 3*size.MiB || !got.Stdin || got.TTY.Rows != 5 || !got.Ephemeral || got.Env["K"] != "V" || got.Secrets[0] != "S" || got.Command[0] != "a" {
		t.Errorf("spec = %+v", got)
	}
}
