package agent

import (
	"log/slog"
	"net/http"
	"path/filepath"

	"github.com/xfeldman/aegisvm/internal/agent/guestapi"
)

// Config is where an agent lives.
type Config struct {
	Log       *slog.Logger
	Workspace string // "/workspace"
	Listen    string // "127.0.0.1:7778"
	GuestAPI  string // "http://127.0.0.1:7777"
	Getenv    func(string) string
	// Transport is how models and the web are reached; nil is the default.
	Transport http.RoundTripper
}

// FromEnv returns the Config of the program: that of a VM, unless AEGIS_AGENT_LISTEN and
// AEGIS_AGENT_WORKSPACE say otherwise.
func FromEnv(log *slog.Logger, getenv func(string) string) Config {
	or := func(name, value string) string {
		if v := getenv(name); v != "" {
			return v
		}
		return value
	}
	return Config{
		Log: log, Getenv: getenv,
		Workspace: or("AEGIS_AGENT_WORKSPACE", "/workspace"),
		Listen:    or("AEGIS_AGENT_LISTEN", "127.0.0.1:7778"),
		GuestAPI:  or("AEGIS_GUEST_API", guestapi.DefaultURL),
	}
}

// Where things are in the workspace.
func (c Config) sessions() string       { return filepath.Join(c.Workspace, "sessions") }
func (c Config) own(name string) string { return filepath.Join(c.Workspace, ".aegis", name) }
