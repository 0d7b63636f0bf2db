package provider

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/agent/history"
	"github.com/xfeldman/aegisvm/internal/agent/modeltest"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/secret"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// formats are the ways to ask, each with how it is chosen.
var formats = map[string]func(url string) Choice{
	"chat": func(url string) Choice {
		return Choice{Model: "some/model", BaseURL: url + "/v1", Key: secret.New(modeltest.Key), KeyName: "K"}
	},
	"responses": func(url string) Choice {
		return Choice{Model: "openai/gpt", BaseURL: url + "/v1/", API: "responses", Key: secret.New(modeltest.Key), KeyName: "OPENAI_API_KEY"}
	},
	"messages": func(url string) Choice {
		return Choice{Model: "claude/opus", BaseURL: url, Key: secret.New(modeltest.Key), KeyName: "ANTHROPIC_API_KEY"}
	},
	"host": func(url string) Choice { return Choice{Model: "host:ollama/llama", GuestAPI: url} },
}

// each runs a test in every format, with a server that says steps one after the other.
func each(t *testing.T, steps func(format string) []modeltest.Step, test func(t *testing.T, m Model, s *modeltest.Server)) {
	t.Helper()
	for name, choice := range formats {
		t.Run(name, func(t *testing.T) {
			s := modeltest.New(t, modeltest.Sequence(steps(name)...))
			tr := &http.Transport{}
			t.Cleanup(tr.CloseIdleConnections)
			c := choice(s.URL)
			c.Transport = tr
			first := steps(name)[0] // timeouts are short only where they are to pass
			if first.Delay > 0 {
				c.Timeouts.First = 300 * time.Millisecond
			}
			if first.Hang {
				c.Timeouts.Idle = 300 * time.Millisecond
			}
			m, err := New(c)
			if err != nil {
				t.Fatal(err)
			}
			test(t, m, s)
		})
	}
}

func one(s modeltest.Step) func(string) []modeltest.Step {
	return func(string) []modeltest.Step { return []modeltest.Step{s} }
}

var offered = []Tool{{Name: "bash", Description: "run", Schema: map[string]any{"type": "object", "properties": map[string]any{"command": map[string]any{"type": "string"}}, "required": []string{"command"}}}}

func ask(ms ...history.Message) Request {
	return Request{System: "be kind", Messages: ms, Tools: offered, Image: func(p api.Picture) ([]byte, error) {
		if p.Blob == "gone" {
			return nil, errors.New("it is gone")
		}
		return []byte("picture of " + p.Blob), nil
	}}
}

func user(text string) history.Message { return history.Message{Role: history.User, Text: text} }

func TestTextAndReasoning(t *testing.T) {
	each(t, one(modeltest.Step{Text: "hello to you all", Reasoning: "they greet"}), func(t *testing.T, m Model, s *modeltest.Server) {
		t.Helper()
		var text, thought strings.Builder
		a, err := m.Stream(t.Context(), ask(user("hi")), func(d Delta) { text.WriteString(d.Text); thought.WriteString(d.Reasoning) })
		if err != nil {
			t.Fatal(err)
		}
		if a.Message.Text != "hello to you all" || text.String() != a.Message.Text || a.Reasoning != "they greet" || thought.String() != a.Reasoning || a.Stop != Done {
			t.Errorf("answer %+v, told %q and %q", a, text.String(), thought.String())
		}
		if r := s.Requests()[0]; r.System != "be kind" || r.Tools[0] != "bash" {
			t.Errorf("request: %+v", r)
		}
	})
}

// TestRoundOfTools sends back what came: parallel calls with text and reasoning before
// them, their results, one with a picture, and a picture of the user's.
func TestRoundOfTools(t *testing.T) {
	steps := []modeltest.Step{
		{Text: "let me see", Reasoning: "hm", Calls: []modeltest.Call{{ID: "c1", Name: "bash", Args: `{"command":"ls"}`}, {ID: "c2", Name: "bash", Args: ``}}},
		{Text: "done"},
	}
	each(t, func(string) []modeltest.Step { return steps }, func(t *testing.T, m Model, s *modeltest.Server) {
		t.Helper()
		q := history.Message{Role: history.User, Text: "look", Images: []api.Picture{{MediaType: "image/png", Blob: "a"}, {Blob: "gone"}}}
		a, err := m.Stream(t.Context(), ask(q), func(Delta) {})
		if err != nil {
			t.Fatal(err)
		}
		if a.Message.Text != "let me see" || len(a.Message.Calls) != 2 || string(a.Message.Calls[1].Args) != "{}" || a.Message.Calls[1].Broken != "" {
			t.Fatalf("answer %+v", a.Message)
		}
		ms := []history.Message{
			q, a.Message,
			{Role: history.Tool, CallID: "c1", Text: "file", Images: []api.Picture{{MediaType: "image/png", Blob: "b"}}},
			{Role: history.Tool, CallID: "c2", Text: "nothing", Failed: true},
		}
		r := ask(ms...)
		r.NoCalls = true
		if _, err := m.Stream(t.Context(), r, func(Delta) {}); err != nil {
			t.Fatal(err)
		}
		got := s.Requests()[1]
		if !got.NoCalls || len(got.Messages) != 4 || got.Messages[1].Text != "let me see" || string(got.Messages[1].Calls[0].Args) != `{"command":"ls"}` {
			t.Errorf("request: %+v", got)
		}
		if !strings.Contains(got.Messages[0].Text, "[the image gone cannot be read: it is gone]") || len(got.Messages[0].Images) != 1 {
			t.Errorf("the user's pictures: %+v", got.Messages[0])
		}
	})
}

func TestBrokenArguments(t *testing.T) {
	each(t, one(modeltest.Step{Calls: []modeltest.Call{{ID: "c1", Name: "bash", Args: `{"command":`}, {ID: "c1", Name: "bash", Args: `{}`}}}), func(t *testing.T, m Model, _ *modeltest.Server) {
		t.Helper()
		a, err := m.Stream(t.Context(), ask(user("x")), func(Delta) {})
		if err != nil {
			t.Fatal(err)
		}
		c := a.Message.Calls
		if len(c) != 2 || c[0].Broken == "" || string(c[0].Args) != "{}" || c[0].ID == c[1].ID {
			t.Errorf("calls: %+v", c)
		}
	})
}

// TestTroubles: what goes wrong has a kind, a hint, and says whether to ask again.
func TestTroubles(t *testing.T) {
	for name, c := range map[string]struct {
		step  modeltest.Step
		kind  fault.Kind
		retry bool
		long  bool
		says  string
	}{
		"rate limit":       {step: modeltest.Step{Status: 429, Header: map[string]string{"Retry-After": "7"}}, kind: fault.Exhausted, retry: true, says: "asked too often"},
		"no money":         {step: modeltest.Step{Status: 429, Body: `{"error":{"message":"You exceeded your current quota","code":"insufficient_quota"}}`}, kind: fault.Denied, says: "does not serve this account"},
		"500":              {step: modeltest.Step{Status: 500}, kind: fault.Unavailable, retry: true, says: "status 500"},
		"529":              {step: modeltest.Step{Status: 529}, kind: fault.Unavailable, retry: true, says: "status 529"},
		"a proxy's page":   {step: modeltest.Step{Status: 502, Body: "<html>bad gateway</html>"}, kind: fault.Unavailable, retry: true, says: "status 502"},
		"unknown model":    {step: modeltest.Step{Status: 404}, kind: fault.NotFound, says: "does not know"},
		"refused key":      {step: modeltest.Step{Status: 401}, kind: fault.Denied, says: "refused the key"},
		"too long":         {step: modeltest.Step{Status: 400, Body: `{"error":{"message":"This model's maximum context length is 8192 tokens","code":"context_length_exceeded"}}`}, kind: fault.TooLarge, long: true, says: "too long"},
		"bad request":      {step: modeltest.Step{Status: 400}, kind: fault.Invalid, says: "no luck"},
		"cut":              {step: modeltest.Step{Text: "one two three four", CutAfter: 3}, kind: fault.Unavailable, retry: true, says: ""},
		"ended early":      {step: modeltest.Step{Text: "one two", Fail: "overloaded_error"}, kind: fault.Unavailable, retry: true, says: "no luck in the middle"},
		"malformed":        {step: modeltest.Step{Text: "one two three four", Malformed: true}, kind: fault.Unavailable, retry: true, says: "not its protocol"},
		"slow first byte":  {step: modeltest.Step{Delay: time.Hour}, kind: fault.Timeout, retry: true, says: "no answer in time"},
		"silent in middle": {step: modeltest.Step{Text: "one two three", Hang: true, CutAfter: 3}, kind: fault.Timeout, retry: true, says: "stopped in the middle"},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, one(c.step), func(t *testing.T, m Model, _ *modeltest.Server) {
				t.Helper()
				_, err := m.Stream(t.Context(), ask(user("x")), func(Delta) {})
				tr, ok := errors.AsType[*Error](err)
				if !ok {
					t.Fatalf("%v is no trouble", err)
				}
				if fault.KindOf(err) != c.kind || tr.Retry != c.retry || tr.TooLong != c.long || !strings.Contains(err.Error(), c.says) || fault.HintOf(err) == "" {
					t.Errorf("%v: kind %s, retry %v, too long %v, hint %q", err, fault.KindOf(err), tr.Retry, tr.TooLong, fault.HintOf(err))
				}
				if name == "rate limit" && tr.After != 7*time.Second {
					t.Errorf("wait for %v", tr.After)
				}
			})
		})
	}
}

func TestEndOfStreamWithoutEnd(t *testing.T) {
	// The server ends well, but the last events never came.
	for _, format := range []string{"chat", "responses", "messages"} {
		s := modeltest.New(t, func(modeltest.Request) modeltest.Step {
			return modeltest.Step{Status: 200, Header: map[string]string{"Content-Type": "text/event-stream"}, Body: ": nothing\n\n"}
		})
		tr := &http.Transport{}
		c := formats[format](s.URL)
		c.Transport = tr
		m, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		_, err = m.Stream(t.Context(), ask(user("x")), func(Delta) {})
		if tro, ok := errors.AsType[*Error](err); !ok || !tro.Retry {
			t.Errorf("%s: %v", format, err)
		}
		tr.CloseIdleConnections()
	}
}

func TestRefusedKeyNamesIt(t *testing.T) {
	s := modeltest.New(t, modeltest.Sequence(modeltest.Step{Text: "x"}))
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	for format, name := range map[string]string{"responses": "OPENAI_API_KEY", "messages": "ANTHROPIC_API_KEY"} {
		c := formats[format](s.URL)
		c.Key, c.Transport = secret.New("sk-wrong-wrong-wrong"), tr
		m, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		_, err = m.Stream(t.Context(), ask(user("x")), func(Delta) {})
		if fault.KindOf(err) != fault.Denied || !strings.Contains(fault.HintOf(err), name) || strings.Contains(err.Error(), "sk-wrong") {
			t.Errorf("%v (%s)", err, fault.HintOf(err))
		}
	}
	for _, model := range []string{"openai/x", "anthropic/x"} {
		if _, err := New(Choice{Model: model}); fault.KindOf(err) != fault.Denied || fault.HintOf(err) == "" {
			t.Errorf("%s without a key: %v", model, err)
		}
	}
}

func TestCancelIsNoTrouble(t *testing.T) {
	cause := errors.New("enough")
	each(t, one(modeltest.Step{Text: "one two three", Pace: 50 * time.Millisecond}), func(t *testing.T, m Model, _ *modeltest.Server) {
		t.Helper()
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		_, err := m.Stream(ctx, ask(user("x")), func(d Delta) {
			if d.Text != "" {
				cancel(cause)
			}
		})
		if !errors.Is(err, cause) {
			t.Errorf("%v, want the cause", err)
		}
	})
}

// scripted is a Model that fails as it is told.
type scripted struct {
	errs []error
	n    int
}

func (s *scripted) Stream(_ context.Context, _ Request, on func(Delta)) (Answer, error) {
	s.n++
	on(Delta{Text: "x"})
	if s.n <= len(s.errs) {
		return Answer{}, s.errs[s.n-1]
	}
	return Answer{Message: history.Message{Text: "x"}}, nil
}

func trouble(retry bool, after time.Duration) error {
	return &Error{Fault: fault.New(fault.Unavailable, "no luck").WithHint("wait"), Retry: retry, After: after}
}

func TestPatientWaitsAsLongAsItIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, again := time.Now(), 0
		m := &Patient{Model: &scripted{errs: []error{trouble(true, 30*time.Second), trouble(true, 0)}}}
		_, err := m.Stream(t.Context(), Request{}, func(d Delta) {
			if d.Again {
				again++
			}
		})
		took := time.Since(began)
		if err != nil || again != 2 || took < 30*time.Second+500*time.Millisecond || took > 32*time.Second {
			t.Errorf("%v after %v, void %d times", err, took, again)
		}
	})
}

func TestPatientGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, c := range map[string]struct {
			err   error
			asked int
		}{
			"what will not change": {trouble(false, 0), 1},
			"too long a wait":      {trouble(true, time.Hour), 1},
			"again and again":      {trouble(true, 0), defaultAttempts},
		} {
			s := &scripted{errs: []error{c.err, c.err, c.err, c.err, c.err, c.err, c.err, c.err}}
			_, err := (&Patient{Model: s}).Stream(t.Context(), Request{}, func(Delta) {})
			if err == nil || s.n != c.asked || fault.HintOf(err) == "" {
				t.Errorf("%s: %v, asked %d times", name, err, s.n)
			}
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(errors.New("enough")) })
		began := time.Now()
		_, err := (&Patient{Model: &scripted{errs: []error{trouble(true, time.Minute)}}}).Stream(ctx, Request{}, func(Delta) {})
		if err == nil || err.Error() != "enough" || time.Since(began) != time.Second {
			t.Errorf("canceled: %v after %v", err, time.Since(began))
		}
	})
}

func TestOpaquePartsGoToTheirModelOnly(t *testing.T) {
	m := history.Message{Opaque: []history.Opaque{{Model: "a", Raw: json.RawMessage(`{}`)}, {Model: "b", Raw: json.RawMessage(`{}`)}}}
	if got := opaque(m, "a"); len(got) != 1 {
		t.Errorf("%d parts", len(got))
	}
}
