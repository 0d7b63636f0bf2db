package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/secret"
)

// safe is Secrets in memory.
type safe struct {
	mu     sync.Mutex
	values map[string]string
	err    error
}

func (s *safe) Set(_ context.Context, name string, value secret.Value) (secret.Meta, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return secret.Meta{}, s.err
	}
	s.values[name] = value.Reveal()
	return secret.Meta{Name: name, KeyID: "key", Created: time.Unix(1, 0), Updated: time.Unix(2, 0)}, nil
}

func (s *safe) List(context.Context) ([]secret.Meta, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []secret.Meta
	for name := range s.values {
		out = append(out, secret.Meta{Name: name, KeyID: "key", Created: time.Unix(1, 0), Updated: time.Unix(2, 0)})
	}
	return out, s.err
}

func (s *safe) Delete(_ context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.values[name]; !ok {
		return fault.New(fault.NotFound, "there is no secret %s", name)
	}
	delete(s.values, name)
	return nil
}

func (s *safe) Rotate(context.Context) (int, error) { return len(s.values), s.err }

func serveSecrets(t *testing.T, log *slog.Logger) (*client.Client, *safe, string) {
	t.Helper()
	s := &safe{values: map[string]string{}}
	c, _, socket := serveConfig(t, &stubRunner{}, Config{Secrets: s, Log: log}, os.Getuid())
	return c, s, socket
}

func TestSecrets(t *testing.T) {
	c, s, _ := serveSecrets(t, nil)
	if list, err := c.Secrets(t.Context()); err != nil || list == nil || len(list) != 0 {
		t.Errorf("none: %#v, %v", list, err)
	}
	for name, value := range map[string]string{
		"MB":    strings.Repeat("x", int(secret.MaxValue)),
		"LINES": "one\ntwo\r\n",
		"WORST": strings.Repeat("\x00", int(secret.MaxValue)), // six letters for each in JSON
		"HTML":  "<&>\u2028\u2029\"\\\x7fü\ufffd",
	} {
		got, err := c.SetSecret(t.Context(), name, value)
		if err != nil || got.Name != name || !got.CreatedAt.Equal(time.Unix(1, 0)) || !got.UpdatedAt.Equal(time.Unix(2, 0)) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if s.values[name] != value {
			t.Errorf("%s arrives as %.40q, want %.40q", name, s.values[name], value)
		}
	}
	if list, err := c.Secrets(t.Context()); err != nil || len(list) != 4 {
		t.Errorf("list: %+v, %v", list, err)
	}
	if n, err := c.RotateMasterKey(t.Context()); err != nil || n != 4 {
		t.Errorf("rotate: %d, %v", n, err)
	}
	if err := c.DeleteSecret(t.Context(), "MB"); err != nil {
		t.Error(err)
	}
	wantFault(t, c.DeleteSecret(t.Context(), "MB"), fault.NotFound, "no secret MB")
	for _, bad := range [][2]string{{"A-B", "x"}, {"", "x"}, {"rotate/x", "x"}, {"A", ""}, {"A", "\xff"}, {"A", strings.Repeat("x", 1<<20+1)}} {
		_, err := c.SetSecret(t.Context(), bad[0], bad[1])
		wantFault(t, err, fault.Invalid, "")
	}
	wantFault(t, c.DeleteSecret(t.Context(), "a/b"), fault.Invalid, "bad name")
	s.err = fault.New(fault.Unavailable, "no key")
	_, err := c.SetSecret(t.Context(), "A", "a")
	wantFault(t, err, fault.Unavailable, "no key")
	_, err = c.Secrets(t.Context())
	wantFault(t, err, fault.Unavailable, "no key")
	_, err = c.RotateMasterKey(t.Context())
	wantFault(t, err, fault.Unavailable, "no key")
}

// TestSecretRefusals speaks as other clients do. No answer and no log has the value.
func TestSecretRefusals(t *testing.T) {
	const planted = "planted-secret"
	var log strings.Builder
	_, s, socket := serveSecrets(t, textLog(&log))
	s.values["KEPT"] = planted
	for name, c := range map[string]struct {
		method, path, body string
		status             int
		msg                string
	}{
		"the value is asked for": {"GET", "/v1/secrets/KEPT", "", 403, "never returned"},
		"one that is not there":  {"GET", "/v1/secrets/NOT", "", 403, "never returned"},
		"bad name":               {"PUT", "/v1/secrets/A-B", `{"value":"` + planted + `"}`, 400, "bad name"},
		"name and value":         {"PUT", "/v1/secrets/A=" + planted, `{"value":"x"}`, 400, "no '='"},
		"no value":               {"PUT", "/v1/secrets/A", `{}`, 400, "empty"},
		"a number":               {"PUT", "/v1/secrets/A", `{"value":12345678901234567890}`, 400, `field "value" takes string`},
		"unknown field":          {"PUT", "/v1/secrets/A", `{"val":"` + planted + `"}`, 400, `unknown field "val"`},
		"not JSON":               {"PUT", "/v1/secrets/A", planted, 400, "not JSON"},
		"not UTF-8":              {"PUT", "/v1/secrets/A", "{\"value\":\"" + planted + "\xff\"}", 400, "not text in UTF-8"},
		"too large":              {"PUT", "/v1/secrets/A", `{"value":"` + strings.Repeat(planted, 80000) + `"}`, 400, "larger than 1 MB"},
		"much too large":         {"PUT", "/v1/secrets/A", `{"value":"` + strings.Repeat(planted, 500000) + `"}`, 413, "too large"},
		"no such method":         {"POST", "/v1/secrets/A", "", 405, "POST /v1/secrets/A"},
		"a large body elsewhere": {"POST", "/v1/instances", `{"handle":"` + strings.Repeat("x", 1<<20) + `"}`, 413, "too large"},
	} {
		t.Run(name, func(t *testing.T) {
			status, e, _ := post(t, socket, c.method, c.path, c.body)
			if status != c.status || !strings.Contains(e.Error, c.msg) {
				t.Errorf("%d %+v, want %d ...%s...", status, e, c.status, c.msg)
			}
			if strings.Contains(e.Error+e.Hint, planted) {
				t.Errorf("the answer has the value: %+v", e)
			}
			if status == 403 && e.Hint == "" {
				t.Error("no hint")
			}
		})
	}
	s.err = errors.New("the disk is broken") // a defect, which is logged
	post(t, socket, "PUT", "/v1/secrets/A", `{"value":"`+planted+`"}`)
	if !strings.Contains(log.String(), "the disk is broken") || strings.Contains(log.String(), planted) {
		t.Errorf("log: %s", log.String())
	}
}

// TestSecretThatPanics has a defect below: the log tells where, not of what.
func TestSecretThatPanics(t *testing.T) {
	const planted = "planted-secret"
	var log strings.Builder
	_, _, socket := serveConfig(t, &stubRunner{}, Config{Secrets: panics{}, Log: textLog(&log)}, os.Getuid())
	status, e, _ := post(t, socket, "PUT", "/v1/secrets/A", `{"value":"`+planted+`"}`)
	if all := log.String() + e.Error + e.Hint; status != 500 || strings.Contains(all, planted) || !strings.Contains(all, "[redacted] is wrong") {
		t.Errorf("%d %+v, log %s", status, e, log.String())
	}
}

type panics struct{ Secrets }

func (panics) Set(_ context.Context, _ string, v secret.Value) (secret.Meta, error) {
	panic(errors.Join(errors.New("x"), fault.New(fault.Internal, "%v is wrong", v)))
}

// granting is an Instances that has one instance, and notes what is asked.
type granting struct {
	Instances
	state   instance.State
	set     []string
	added   []string
	started int
	err     error
}

func (g *granting) Get(string) (instance.View, error) {
	return instance.View{Record: instance.Record{ID: "inst-0", Spec: instance.Spec{Handle: "web", Secrets: g.set}}, State: g.state}, nil
}

func (g *granting) SetSecrets(_ context.Context, _ string, names []string) (instance.Granted, error) {
	g.set = names
	return instance.Granted{Names: names, Restart: len(names) > 1}, g.err
}

func (g *granting) AddSecrets(_ context.Context, _ string, names []string) (instance.Granted, error) {
	g.added = names
	return instance.Granted{Names: names}, g.err
}

func (g *granting) Start(context.Context, string) error {
	g.started++
	return nil
}

func TestInstanceSecrets(t *testing.T) {
	g := &granting{}
	c, _, socket := serveConfig(t, &stubRunner{}, Config{Instances: g}, os.Getuid())
	got, err := c.SetInstanceSecrets(t.Context(), "web", []string{"A", "B"})
	if err != nil || !slices.Equal(got.SecretKeys, []string{"A", "B"}) || !got.RestartRequired || len(g.set) != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	got, err = c.SetInstanceSecrets(t.Context(), "web", nil)
	if err != nil || got.SecretKeys == nil || len(got.SecretKeys) != 0 || got.RestartRequired {
		t.Errorf("none: %+v, %v", got, err)
	}
	if status, e, _ := post(t, socket, http.MethodPut, "/v1/instances/web/secrets", `{}`); status != 400 || e.Hint == "" {
		t.Errorf("%d %+v", status, e)
	}
	g.err = fault.New(fault.NotFound, "there is no secret A")
	_, err = c.SetInstanceSecrets(t.Context(), "web", []string{"A"})
	wantFault(t, err, fault.NotFound, "no secret A")
}

// TestStartAgainAddsSecrets starts an instance that exists, with more secrets.
func TestStartAgainAddsSecrets(t *testing.T) {
	g := &granting{state: instance.Stopped}
	c, _, _ := serveConfig(t, &stubRunner{}, Config{Instances: g}, os.Getuid())
	start := func(names ...string) error {
		_, again, err := c.Launch(t.Context(), api.CreateRequest{Handle: "web", Secrets: names})
		if err == nil && !again {
			t.Error("it is not known")
		}
		return err
	}
	if err := start(); err != nil || g.added != nil || g.started != 1 {
		t.Errorf("%v, added %q, started %d", err, g.added, g.started)
	}
	if err := start("A"); err != nil || !slices.Equal(g.added, []string{"A"}) || g.started != 2 {
		t.Errorf("%v, added %q, started %d", err, g.added, g.started)
	}
	g.err = fault.New(fault.NotFound, "there is no secret B")
	wantFault(t, start("B"), fault.NotFound, "no secret B")
	g.added, g.state = nil, instance.Running
	wantFault(t, start("A"), fault.Conflict, "is taken")
	if g.started != 2 || g.added != nil {
		t.Errorf("started %d, added %q", g.started, g.added)
	}
}
