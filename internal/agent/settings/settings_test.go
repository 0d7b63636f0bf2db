package settings

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xfeldman/aegisvm/internal/fault"
)

func env(kv ...string) func(string) string {
	m := map[string]string{}
	for i := 0; i < len(kv); i += 2 {
		m[kv[i]] = kv[i+1]
	}
	return func(k string) string { return m[k] }
}

func TestDecode(t *testing.T) {
	s, err := Decode([]byte(`{"model":"claude/x","api_key_env":"K","max_tokens":100,"context_chars":5000,"system_prompt":"be kind",
		"mcp":{"git":{"command":"git-mcp","args":["-x"],"env":{"A":"b"}}},"tools":{"bash":{"enabled":false}},"memory":{"inject":3}}`),
		env("AEGIS_MODEL", "openai/y", "AEGIS_CONTEXT_CHARS", "7000", "AEGIS_SYSTEM_PROMPT", "be brief"))
	if err != nil {
		t.Fatal(err)
	}
	if s.Model != "openai/y" || s.ContextChars != 7000 || s.SystemPrompt != "be brief" || s.MaxTokens != 100 {
		t.Errorf("settings: %+v", s)
	}
	if s.Offers("bash") || !s.Offers("grep") || s.Injected() != 3 || s.ContextTurns != defaultTurns || s.Budget.Rounds != 20 {
		t.Errorf("settings: %+v", s)
	}
}

func TestModelFollowsFromKeys(t *testing.T) {
	for want, getenv := range map[string]func(string) string{
		defaultOpenAI:    env("OPENAI_API_KEY", "k", "ANTHROPIC_API_KEY", "k"),
		defaultAnthropic: env("ANTHROPIC_API_KEY", "k"),
		"":               env(),
	} {
		s, err := Decode(nil, getenv)
		if err != nil || s.Model != want {
			t.Errorf("model %q, %v; want %q", s.Model, err, want)
		}
		c, err := s.Choice(getenv, "")
		if want == "" {
			if fault.HintOf(err) == "" {
				t.Errorf("no model is no error with a hint: %v", err)
			}
		} else if err != nil || c.Key.Reveal() != "k" {
			t.Errorf("choice: %+v, %v", c, err)
		}
	}
}

func TestKeyGoesToItsOwnServer(t *testing.T) {
	getenv := env("OPENAI_API_KEY", "k", "MINE", "m")
	for _, c := range []struct {
		file, key string
	}{
		{`{"model":"llama","base_url":"http://x/v1"}`, ""},
		{`{"model":"llama","base_url":"http://x/v1","api_key_env":"MINE"}`, "m"},
		{`{"model":"openai/x","base_url":"http://x/v1"}`, "k"},
		{`{"model":"host:ollama/x"}`, ""},
	} {
		s, err := Decode([]byte(c.file), getenv)
		if err != nil {
			t.Fatal(err)
		}
		choice, err := s.Choice(getenv, "http://g")
		if err != nil || choice.Key.Reveal() != c.key {
			t.Errorf("%s: key %q, %v; want %q", c.file, choice.Key.Reveal(), err, c.key)
		}
	}
}

func TestErrorsSayWhere(t *testing.T) {
	for file, want := range map[string]string{
		"{\n\"mdl\": \"x\"\n}":                     "line 2: unknown field \"mdl\"",
		"{\n\n\"model\": 3}":                       "line 3: \"model\" is a number",
		"{\"model\": \"x\"":                        "it ends in the middle",
		"{} {}":                                    "more than one JSON value",
		`{"context_chars": 5}`:                     "context_chars is 5: it is from 2000",
		`{"mcp":{"a b":{"command":"x"}}}`:          "no name of a server",
		`{"mcp":{"a":{}}}`:                         "mcp.a has no command",
		`{"api":"soap"}`:                           `"chat" or "responses"`,
		`{"model":"gpt-5"}`:                        "is not a model",
		`{"model":"host:skynet/x"}`:                "is not a model",
		"{\n\"model\": \"openai/x\",,\n\"api\":1}": "line 2: invalid character",
	} {
		_, err := Decode([]byte(file), env())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", file, err, want)
		}
	}
	if _, err := Decode(nil, env("AEGIS_MAX_TOKENS", "many")); err == nil || !strings.Contains(err.Error(), "AEGIS_MAX_TOKENS") {
		t.Errorf("a variable that is no number: %v", err)
	}
}

func TestSourceKeepsTheLastGood(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.json")
	s := &Source{Path: path, Getenv: env("OPENAI_API_KEY", "k")}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.Load(); err != nil || got.Model != defaultOpenAI {
		t.Fatalf("without a file: %+v, %v", got, err)
	}
	write(`{"model":"openai/a"}`)
	if got, err := s.Load(); err != nil || got.Model != "openai/a" {
		t.Fatalf("%+v, %v", got, err)
	}
	write(`{"model":`)
	for range 2 {
		if got, err := s.Load(); err == nil || got == nil || got.Model != "openai/a" || fault.HintOf(err) == "" {
			t.Fatalf("broken: %+v, %v", got, err)
		}
	}
	write(`{"model":"openai/bb"}`)
	if got, err := s.Load(); err != nil || got.Model != "openai/bb" {
		t.Fatalf("mended: %+v, %v", got, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Load(); err != nil || got.Model != defaultOpenAI {
		t.Fatalf("removed: %+v, %v", got, err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"model":"openai/x","mcp":{"a":{"command":"b"}},"memory":{"inject":1}}`))
	f.Add([]byte(`{"tools":{"bash":{"enabled":null}},"budget":{"rounds":1}}`))
	f.Add([]byte("null"))
	f.Add([]byte(`{"model":"\u0000/`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Decode(data, env())
		if (s == nil) == (err == nil) {
			t.Fatalf("%+v, %v", s, err)
		}
		if err == nil {
			if err := s.check(); err != nil {
				t.Fatal(err)
			}
		}
	})
}
