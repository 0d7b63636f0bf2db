package mcpserver

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/size"
)

// port is a port as models write it: 80, "80", "8080:80" or "5432/tcp".
type port string

// UnmarshalJSON implements json.Unmarshaler.
func (p *port) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, (*string)(p))
	}
	*p = port(b)
	return nil
}

// ownSchemas are those that cannot be made from the Go types.
var ownSchemas = map[reflect.Type]*jsonschema.Schema{
	reflect.TypeFor[ref]():             {Type: "string", MinLength: new(1)},
	reflect.TypeFor[port]():            {Types: []string{"string", "integer"}},
	reflect.TypeFor[json.RawMessage](): {},
}

type startInput struct {
	Command      []string          `json:"command,omitempty" jsonschema:"program and arguments, such as [\"sleep\",\"infinity\"] or [\"sh\",\"-c\",\"...\"]; when it ends the instance stops. Leave it out to start a stored instance again, with a kit that has a command, or with snapshot"`
	Name         string            `json:"name,omitempty" jsonschema:"handle for the instance: letters, digits, '.', '_' and '-'. Of an instance that exists and is stopped or disabled it starts that one again; without it the id is the handle"`
	Kit          string            `json:"kit,omitempty" jsonschema:"kit whose command, image and rights it has where this call says nothing; see kit_list"`
	Workspace    string            `json:"workspace,omitempty" jsonschema:"what is at /workspace: a name, which is kept and can be shared by instances, or a folder of the user's machine (absolute, or beginning with ./). Without it the instance has an empty one that goes with it"`
	Image        string            `json:"image,omitempty" jsonschema:"OCI image such as python:3.13-slim; without it a small Debian with python3. ENTRYPOINT and CMD of the image are ignored"`
	Secrets      []string          `json:"secrets,omitempty" jsonschema:"names of stored secrets for the environment of its programs; [\"*\"] is all of them"`
	Env          map[string]string `json:"env,omitempty" jsonschema:"environment of its programs; not for secrets"`
	Expose       []port            `json:"expose,omitempty" jsonschema:"ports to open on the user's machine: \"80\", \"8080:80\" to have port 8080 there, \"5432/tcp\" for what is no HTTP"`
	MemoryMB     int64             `json:"memory_mb,omitempty" jsonschema:"memory in MB; 512 without it"`
	VCPUs        int               `json:"vcpus,omitempty" jsonschema:"virtual CPUs; 1 without it"`
	DiskMB       int64             `json:"disk_mb,omitempty" jsonschema:"disk in MB, of which only what is written is taken; 8192 without it"`
	Capabilities *api.Capabilities `json:"capabilities,omitempty" jsonschema:"what its programs may ask of AegisVM themselves, such as starting further instances; without it that of the kit, else nothing"`
	Snapshot     string            `json:"snapshot,omitempty" jsonschema:"go on from this snapshot, in an instance of its own; without command, image, workspace and memory"`
	Egress       string            `json:"egress,omitempty" jsonschema:"what it may reach: none, public (the internet, the default) or all (the user's own network too)"`
	AllowHosts   []string          `json:"allow_hosts,omitempty" jsonschema:"names, addresses or prefixes, with :port or without, that it may reach; without egress nothing else"`
}

type startOutput struct {
	ID        string     `json:"id"`
	Handle    string     `json:"handle"`
	State     string     `json:"state"`
	Restarted bool       `json:"restarted,omitempty" jsonschema:"it existed, and was started again"`
	Endpoints []endpoint `json:"endpoints"`
}

func (o startOutput) text() string {
	var b strings.Builder
	what := "started"
	if o.Restarted {
		what = "started again"
	}
	fmt.Fprintf(&b, "%s (%s) has %s and is %s", o.Handle, o.ID, what, o.State)
	for _, e := range o.Endpoints {
		fmt.Fprintf(&b, "\nport %d: %s", e.GuestPort, e.URL)
	}
	return b.String()
}

func startTool(s *Server) tool[startInput, startOutput] {
	return tool[startInput, startOutput]{
		name: "instance_start", title: "Start an instance", effect: adds, open: true,
		about: "Start a microVM that runs a command, and return when the command runs, with a URL for each exposed port. " +
			"The instance stays until instance_delete: it falls asleep when nothing uses it and wakes when something does. " +
			"With the name alone it starts an instance that exists again. When the start fails a new instance stays, stopped: logs and instance_info tell why.",
		refine: func(in *jsonschema.Schema) { enum(in, "egress", "none", "public", "all") },
		do:     s.start,
	}
}

func (s *Server) start(ctx context.Context, c *call, in startInput) (out startOutput, err error) {
	req, err := in.request()
	if err != nil {
		return out, err
	}
	if in.Image != "" && len(in.Command) > 0 {
		// The start would do so itself, but not tell how far it is.
		if _, err := s.api.PullImage(ctx, in.Image, "missing", c.pulling(in.Image)); err != nil {
			return out, err
		}
	}
	c.progress.say("starting %s", in.Name)
	created, again, err := s.api.Launch(ctx, req)
	if err != nil {
		return out, err
	}
	return startOutput{
		ID: created.ID, Handle: created.Handle, State: created.State, Restarted: again, Endpoints: endpointsOf(created.Endpoints),
	}, nil
}

func (in startInput) request() (req api.CreateRequest, err error) {
	if slices.Equal([]string{in.Name, in.Kit, in.Snapshot}, []string{"", "", ""}) && len(in.Command) == 0 {
		return req, fault.New(fault.Invalid, "there is nothing to start").
			WithHint(`give a command such as ["sleep","infinity"], the name of an instance that exists, a kit or a snapshot`)
	}
	req = api.CreateRequest{
		Command: in.Command, Handle: in.Name, Kit: in.Kit, ImageRef: in.Image, Secrets: in.Secrets, Env: in.Env,
		MemoryMB: in.MemoryMB, VCPUs: in.VCPUs, DiskMB: in.DiskMB, Capabilities: in.Capabilities, Snapshot: in.Snapshot,
		Egress: in.Egress, AllowHosts: in.AllowHosts,
	}
	if req.Workspace, err = folder(in.Workspace); err != nil {
		return req, err
	}
	for _, p := range in.Expose {
		e, err := api.ParseExpose(string(p))
		if err != nil {
			return req, fault.Wrap(fault.Invalid, err, "expose %q", string(p)).WithHint(`such as "80", "8080:80" or "5432/tcp"`)
		}
		req.Expose = append(req.Expose, e)
	}
	return req, nil
}

// folder returns the name of a workspace as it is, and a path as an absolute one: this
// program runs where its client works.
func folder(s string) (string, error) {
	if s == "." || s == ".." || strings.ContainsRune(s, '/') {
		if strings.HasPrefix(s, "~") {
			return "", fault.New(fault.Invalid, "workspace %q: ~ is known to shells only", s).WithHint("give the absolute path")
		}
		return filepath.Abs(s)
	}
	return s, nil
}

// pulling tells how far an image is.
func (c *call) pulling(ref string) func(api.ImageProgress) {
	return func(p api.ImageProgress) {
		switch {
		case p.Total > 0:
			c.progress.say("%s %s: %s of %s", p.Status, ref, size.Bytes(p.Current), size.Bytes(p.Total))
		case p.Current > 0:
			c.progress.say("%s %s: %s", p.Status, ref, size.Bytes(p.Current))
		default:
			c.progress.say("%s %s", p.Status, ref)
		}
	}
}
