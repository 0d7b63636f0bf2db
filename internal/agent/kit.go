package agent

import (
	"cmp"
	"context"
	"maps"
	"os/exec"
	"time"

	"github.com/xfeldman/aegisvm/internal/agent/history"
	"github.com/xfeldman/aegisvm/internal/agent/provider"
	"github.com/xfeldman/aegisvm/internal/agent/session"
	"github.com/xfeldman/aegisvm/internal/agent/settings"
	"github.com/xfeldman/aegisvm/internal/agent/tool"
	"github.com/xfeldman/aegisvm/internal/logattr"
	"github.com/xfeldman/aegisvm/internal/secret"
)

// guestServer is the MCP server about this machine, which is always there: its tools are
// called aegis_..., and the program is beside this one in every VM.
const (
	guestServer  = "aegis"
	guestProgram = "aegis-mcp-guest"
)

// serversWait is how long a run waits for MCP servers that are starting.
const serversWait = 10 * time.Second

// maxTools is how many tools providers take.
const maxTools = 128

// kit is what a run works with. It does not change while it does.
type kit struct {
	model     provider.Model
	tools     *tool.Set
	system    string
	context   history.Limits
	maxTokens int
}

// assemble makes the kit for a message.
func (a *Agent) assemble(ctx context.Context, s *settings.Settings, taken *session.Taken) (*kit, error) {
	a.servers.Use(ctx, a.serverConf(s))
	waiting, cancel := context.WithTimeout(ctx, serversWait)
	defer cancel()
	theirs, notes := a.servers.Tools(waiting)
	k, err := a.bench.kit(s, theirs, a.outfit)
	if err != nil {
		return nil, err
	}
	k.system = a.prompt(s, taken, notes)
	return &k, nil
}

// outfit makes what of a kit is the same for all messages.
func (a *Agent) outfit(s *settings.Settings, theirs []tool.Tool) (k kit, err error) {
	choice, err := s.Choice(a.conf.Getenv, a.conf.GuestAPI)
	if err != nil {
		return k, err
	}
	choice.Transport = a.web.Transport
	model, err := provider.New(choice)
	if err != nil {
		return k, err
	}
	brave, images := a.keys(s)
	var offered []tool.Tool
	for _, t := range append(a.tools(s, brave, images), theirs...) {
		if s.Offers(t.Name) {
			offered = append(offered, t)
		}
	}
	offered = offered[:min(len(offered), maxTools)]
	return kit{
		model: &provider.Patient{Model: model, Waiting: func(why error, pause time.Duration) {
			a.log.Info("the model is asked again", logattr.Err(why), logattr.Took(pause))
		}},
		tools: tool.NewSet(offered, choice.Key, brave, images), context: s.Context(), maxTokens: s.MaxTokens,
	}, nil
}

// keys returns the keys of tools.
func (a *Agent) keys(s *settings.Settings) (brave, images secret.Value) {
	return secret.New(a.conf.Getenv(cmp.Or(s.Tools["web_search"].APIKeyEnv, "BRAVE_API_KEY"))),
		secret.New(a.conf.Getenv(cmp.Or(s.Tools["image_generate"].APIKeyEnv, "OPENAI_API_KEY")))
}

// tools returns the tools that can work.
func (a *Agent) tools(s *settings.Settings, brave, images secret.Value) []tool.Tool {
	dir := a.conf.Workspace
	out := []tool.Tool{tool.Bash(dir, a.conf.own("outputs"), time.Duration(s.Tools["bash"].TimeoutS)*time.Second)}
	out = append(out, tool.Files(dir, a.blobs)...)
	out = append(out, tool.Find(dir)...)
	if s.Remembers() {
		out = append(out, tool.Memory(a.memory)...)
	}
	out = append(out, a.cron...)
	out = append(out, tool.Web(a.web))
	if brave.Len() > 0 {
		out = append(out, tool.Search(a.web, s.Tools["web_search"].BaseURL, brave)...)
	}
	if images.Len() > 0 {
		conf := s.Tools["image_generate"]
		out = append(out, tool.Generate(tool.Images{Client: a.web, BaseURL: conf.BaseURL, Key: images, Model: conf.Model, Blobs: a.blobs, Dir: dir}))
	}
	out = append(out, tool.Respond(dir, a.blobs))
	return append(out, tool.Self(a)...)
}

// serverConf returns the MCP servers: those of the user, and the guest's own.
func (a *Agent) serverConf(s *settings.Settings) map[string]settings.MCPServer {
	out := maps.Clone(s.MCP)
	if out == nil {
		out = map[string]settings.MCPServer{}
	}
	if _, ok := out[guestServer]; !ok {
		if path, err := exec.LookPath(guestProgram); err == nil {
			out[guestServer] = settings.MCPServer{Command: path}
		}
	}
	return out
}
