package mcpguest

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/xfeldman/aegisvm/api"
)

type spawnInput struct {
	Command   []string          `json:"command" jsonschema:"the program and its arguments; there is no shell"`
	Handle    string            `json:"handle,omitempty" jsonschema:"name of the instance, which no other one has"`
	ImageRef  string            `json:"image_ref,omitempty" jsonschema:"image of the VM; the one of this VM if left out"`
	Workspace string            `json:"workspace,omitempty" jsonschema:"what stands at /workspace in it: left out is an empty folder of its own, . is this VM's /workspace, ./dir a folder in that, a name a workspace on the host"`
	Exposes   []exposeInput     `json:"exposes,omitempty" jsonschema:"ports of it to open on the host"`
	MemoryMB  int64             `json:"memory_mb,omitempty" jsonschema:"memory, in MB"`
	VCPUs     int               `json:"vcpus,omitempty" jsonschema:"virtual CPUs"`
	Env       map[string]string `json:"env,omitempty" jsonschema:"environment of its programs"`
	Secrets   []string          `json:"secrets,omitempty" jsonschema:"names of secrets of this VM for its environment"`
}

type childInput struct {
	ID string `json:"id" jsonschema:"id or name of the instance"`
}

type execInput struct {
	ID        string            `json:"id" jsonschema:"id or name of the instance"`
	Command   []string          `json:"command" jsonschema:"the program and its arguments; there is no shell"`
	Env       map[string]string `json:"env,omitempty"`
	Workdir   string            `json:"workdir,omitempty" jsonschema:"folder in which it starts"`
	TimeoutMS int64             `json:"timeout_ms,omitempty" jsonschema:"after which it is ended; 0 is never"`
}

type logsInput struct {
	ID   string `json:"id" jsonschema:"id or name of the instance"`
	Tail int    `json:"tail,omitempty" jsonschema:"how many of the last lines; 100 if left out"`
}

// vmBrief is an instance in a list.
type vmBrief struct {
	ID        string              `json:"id"`
	Handle    string              `json:"handle"`
	State     string              `json:"state" jsonschema:"starting, running, paused or stopped"`
	Command   []string            `json:"command"`
	Endpoints []api.GuestEndpoint `json:"endpoints" jsonschema:"ports that are open on the host"`
	Why       string              `json:"why,omitempty" jsonschema:"why it is stopped"`
}

type childList struct {
	Instances []vmBrief `json:"instances"`
}

// output is what a command wrote, or a log holds.
type output struct {
	Stdout    string `json:"stdout"`
	Stderr    string `json:"stderr"`
	ExitCode  int    `json:"exit_code"`
	Truncated bool   `json:"truncated,omitempty" jsonschema:"there was more"`
}

type logText struct {
	Lines     []string `json:"lines"`
	Truncated bool     `json:"truncated,omitempty" jsonschema:"there was more"`
}

func brief(c api.Child) vmBrief {
	b := vmBrief{ID: c.ID, Handle: c.Handle, State: c.State, Command: c.Command, Endpoints: c.Endpoints, Why: c.Why}
	if b.Command == nil {
		b.Command = []string{}
	}
	if b.Endpoints == nil {
		b.Endpoints = []api.GuestEndpoint{}
	}
	return b
}

func briefs(all []api.Child) []vmBrief {
	out := make([]vmBrief, 0, len(all))
	for _, c := range all {
		out = append(out, brief(c))
	}
	return out
}

func (t *tools) list(ctx context.Context) (all []api.Child, err error) {
	return all, t.host.do(ctx, http.MethodGet, "/v1/instances", nil, &all)
}

func child(id, more string) string { return "/v1/instances/" + url.PathEscape(id) + more }

// children adds the tools that are about other VMs.
func (t *tools) children(s *mcp.Server) {
	add(s, "instance_spawn", "Start another VM, a child of this one, and return when its command runs. It ends with this one.", changes(false, false), t.spawn)
	add(s, "instance_list", "List the children of this VM.", reads(),
		func(ctx context.Context, _ nothing) (childList, error) {
			all, err := t.list(ctx)
			return childList{briefs(all)}, err
		})
	add(s, "instance_stop", "Stop a child. It keeps its disk, and runs its command again when somebody needs it.", changes(true, true),
		func(ctx context.Context, in childInput) (done, error) {
			return done{"stopped"}, t.host.do(ctx, http.MethodPost, child(in.ID, "/stop"), nil, nil)
		})
	add(s, "instance_delete", "Delete a child, with its disk.", changes(true, true),
		func(ctx context.Context, in childInput) (done, error) {
			return done{"deleted"}, t.host.do(ctx, http.MethodDelete, child(in.ID, ""), nil, nil)
		})
	add(s, "instance_exec", "Run a command in a child and return what it wrote, and its exit status.", changes(true, false), t.exec)
	add(s, "instance_logs", "Return the last lines of what the command of a child wrote.", reads(), t.logs)
}

func (t *tools) spawn(ctx context.Context, in spawnInput) (vmBrief, error) {
	req := api.SpawnRequest{
		Command: in.Command, Handle: in.Handle, ImageRef: in.ImageRef, Workspace: in.Workspace,
		MemoryMB: in.MemoryMB, VCPUs: in.VCPUs, Env: in.Env, Secrets: in.Secrets, Wait: true,
	}
	for _, e := range in.Exposes {
		req.Exposes = append(req.Exposes, api.GuestExpose(e))
	}
	var c api.Child
	err := t.host.do(ctx, http.MethodPost, "/v1/instances", req, &c)
	return brief(c), err
}

// maxOutput is how much of what a command writes a model is told, of each stream.
const maxOutput = 64 << 10

func (t *tools) exec(ctx context.Context, in execInput) (output, error) {
	if in.TimeoutMS > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(in.TimeoutMS)*time.Millisecond)
		defer cancel()
	}
	var out output
	req := api.ExecRequest{Command: in.Command, Env: in.Env, Workdir: in.Workdir}
	err := t.host.lines(ctx, http.MethodPost, child(in.ID, "/exec"), req, func(line []byte) bool {
		var e struct {
			api.LogEntry

			ExitCode int  `json:"exit_code"`
			Done     bool `json:"done"`
		}
		if json.Unmarshal(line, &e) != nil {
			return true // of a later version
		}
		to := &out.Stdout
		if e.Stream == "stderr" {
			to = &out.Stderr
		}
		switch {
		case e.Done:
			out.ExitCode = e.ExitCode
		case e.Stream == "":
		case len(*to) >= maxOutput:
			out.Truncated = true
		case e.Open:
			*to += e.Line
		default:
			*to += e.Line + "\n"
		}
		return true
	})
	return out, err
}

func (t *tools) logs(ctx context.Context, in logsInput) (logText, error) {
	out, size := logText{Lines: []string{}}, 0
	tail := in.Tail
	if tail <= 0 {
		tail = 100
	}
	err := t.host.lines(ctx, http.MethodGet, child(in.ID, "/logs?tail="+strconv.Itoa(tail)), nil, func(line []byte) bool {
		var e api.LogEntry
		if json.Unmarshal(line, &e) != nil {
			return true // of a later version
		}
		if size += len(e.Line); size > maxOutput {
			out.Truncated = true
			return false
		}
		if e.Source == "system" {
			e.Line = "[system] " + e.Line
		}
		out.Lines = append(out.Lines, e.Line)
		return true
	})
	return out, err
}
