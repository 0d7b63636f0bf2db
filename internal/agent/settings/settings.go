package settings

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/xfeldman/aegisvm/internal/agent/history"
	"github.com/xfeldman/aegisvm/internal/agent/provider"
	"github.com/xfeldman/aegisvm/internal/fault"
)

// Settings is agent.json. Zeros are defaults; Load fills them in.
type Settings struct {
	Model        string `json:"model"`       // see package provider
	APIKeyEnv    string `json:"api_key_env"` // the environment variable with the key
	BaseURL      string `json:"base_url"`
	API          string `json:"api"` // "chat" or "responses"
	MaxTokens    int    `json:"max_tokens"`
	ContextChars int    `json:"context_chars"`
	ContextTurns int    `json:"context_turns"`
	SystemPrompt string `json:"system_prompt"`
	TimeoutS     int    `json:"timeout_s"` // until a model's first byte

	MCP    map[string]MCPServer `json:"mcp"`
	Tools  map[string]Tool      `json:"tools"`
	Memory Memory               `json:"memory"`
	Budget Budget               `json:"budget"`
}

// MCPServer is a program whose tools the agent has.
type MCPServer struct {
	Command string            `json:"command"`
	Args    []string          `json:"args"`
	Env     map[string]string `json:"env"`
}

// Tool says how a tool is used. The name may be that of a server's tool.
type Tool struct {
	Enabled   *bool  `json:"enabled"`
	APIKeyEnv string `json:"api_key_env"`
	BaseURL   string `json:"base_url"`
	Model     string `json:"model"`     // of image_generate
	TimeoutS  int    `json:"timeout_s"` // of bash: the default of a command
}

// Memory says what is remembered over sessions.
type Memory struct {
	Enabled *bool `json:"enabled"`
	Inject  *int  `json:"inject"` // how many of the newest a session begins with
}

// Budget bounds one run: the work on one message.
type Budget struct {
	Rounds  int `json:"rounds"`  // answers that call tools
	Minutes int `json:"minutes"` // of work
	Tokens  int `json:"tokens"`  // in and out; 0 is no bound
}

// The defaults.
const (
	defaultChars   = 200_000
	defaultTurns   = 50
	defaultRounds  = 20
	defaultMinutes = 60
	defaultInject  = 20

	defaultOpenAI    = "openai/gpt-5.5"
	defaultAnthropic = "anthropic/claude-sonnet-5-5"
)

var (
	serverName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9-]{0,31}$`)
	toolName   = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)
)

// limits are the numbers in the file and the environment, and what they may be.
func (s *Settings) limits() []limit {
	return []limit{
		{"max_tokens", &s.MaxTokens, 0, 1_000_000},
		{"context_chars", &s.ContextChars, 2000, 4_000_000},
		{"context_turns", &s.ContextTurns, 1, 10_000},
		{"timeout_s", &s.TimeoutS, 0, 3600},
		{"budget.rounds", &s.Budget.Rounds, 1, 200},
		{"budget.minutes", &s.Budget.Minutes, 1, 24 * 60},
		{"budget.tokens", &s.Budget.Tokens, 0, 1_000_000_000},
	}
}

type limit struct {
	key      string
	value    *int
	min, max int
}

// fill puts in the environment and the defaults.
func (s *Settings) fill(getenv func(string) string) error {
	s.Model = cmp.Or(getenv("AEGIS_MODEL"), s.Model)
	s.SystemPrompt = cmp.Or(getenv("AEGIS_SYSTEM_PROMPT"), s.SystemPrompt)
	for name, value := range map[string]*int{
		"AEGIS_MAX_TOKENS": &s.MaxTokens, "AEGIS_CONTEXT_CHARS": &s.ContextChars, "AEGIS_CONTEXT_TURNS": &s.ContextTurns,
	} {
		text := getenv(name)
		if text == "" {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil {
			return fault.New(fault.Invalid, "%s is %q, not a number", name, text)
		}
		*value = n
	}
	if s.Model == "" && s.BaseURL == "" {
		switch {
		case getenv("OPENAI_API_KEY") != "":
			s.Model = defaultOpenAI
		case getenv("ANTHROPIC_API_KEY") != "":
			s.Model = defaultAnthropic
		}
	}
	s.ContextChars = cmp.Or(s.ContextChars, defaultChars)
	s.ContextTurns = cmp.Or(s.ContextTurns, defaultTurns)
	s.Budget.Rounds = cmp.Or(s.Budget.Rounds, defaultRounds)
	s.Budget.Minutes = cmp.Or(s.Budget.Minutes, defaultMinutes)
	return nil
}

// check says what is wrong with settings that are filled in.
func (s *Settings) check() error {
	for _, l := range s.limits() {
		if *l.value < l.min || *l.value > l.max {
			return fault.New(fault.Invalid, "%s is %d: it is from %d to %d", l.key, *l.value, l.min, l.max)
		}
	}
	if s.API != "" && s.API != "chat" && s.API != "responses" {
		return fault.New(fault.Invalid, `api is %q: it is "chat" or "responses"`, s.API)
	}
	if s.Model != "" {
		if _, _, err := provider.Split(s.Model, s.BaseURL != ""); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.MCP)) {
		if !serverName.MatchString(name) {
			return fault.New(fault.Invalid, "mcp: %q is no name of a server: letters, digits and '-', at most 32", name)
		}
		if s.MCP[name].Command == "" {
			return fault.New(fault.Invalid, "mcp.%s has no command", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Tools)) {
		if !toolName.MatchString(name) {
			return fault.New(fault.Invalid, "tools: %q is no name of a tool", name)
		}
	}
	if n := s.Memory.Inject; n != nil && (*n < 0 || *n > 200) {
		return fault.New(fault.Invalid, "memory.inject is %d: it is from 0 to 200", *n)
	}
	return nil
}

// Context is how much of a conversation is sent.
func (s *Settings) Context() history.Limits {
	return history.Limits{Chars: s.ContextChars, Turns: s.ContextTurns}
}

// Offers reports whether a tool is to be offered, if it can be.
func (s *Settings) Offers(tool string) bool {
	t := s.Tools[tool]
	return t.Enabled == nil || *t.Enabled
}

// Remembers reports whether there is a memory.
func (s *Settings) Remembers() bool { return s.Memory.Enabled == nil || *s.Memory.Enabled }

// Injected is how many memories a session begins with.
func (s *Settings) Injected() int {
	if s.Memory.Inject == nil {
		return defaultInject
	}
	return *s.Memory.Inject
}

// Choice says which model to ask.
func (s *Settings) Choice(getenv func(string) string, guestAPI string) (provider.Choice, error) {
	if s.Model == "" {
		return provider.Choice{}, fault.New(fault.Invalid, "no model is set, and there is no key from which to guess one").
			WithHint(`on the host: aegis secret set OPENAI_API_KEY (or ANTHROPIC_API_KEY), then start the instance with --secret OPENAI_API_KEY; ` +
				`or set "model" in /workspace/.aegis/agent.json`)
	}
	kind, _, err := provider.Split(s.Model, s.BaseURL != "")
	if err != nil {
		return provider.Choice{}, err
	}
	c := provider.Choice{
		Model: s.Model, BaseURL: s.BaseURL, API: s.API, GuestAPI: guestAPI,
		KeyName:  cmp.Or(s.APIKeyEnv, provider.DefaultKey(kind)),
		Timeouts: provider.Timeouts{First: time.Duration(s.TimeoutS) * time.Second},
	}
	if s.APIKeyEnv == "" && s.BaseURL != "" && getenv(c.KeyName) == "" {
		c.KeyName = "" // servers of one's own need none
	}
	if c.KeyName != "" {
		c.Key = secretOf(getenv, c.KeyName)
	}
	return c, nil
}

// String names the settings that matter to a user who asks.
func (s *Settings) String() string {
	return fmt.Sprintf("model %s, context %d characters or %d turns", s.Model, s.ContextChars, s.ContextTurns)
}
