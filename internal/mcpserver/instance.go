package mcpserver

import (
	"context"
	"time"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/xfeldman/aegisvm/api"
)

// ref is a handle or id, or another name of something. It is not empty: that would be
// the list of all.
type ref string

// named is the input of tools that are about one instance.
type named struct {
	Name ref `json:"name" jsonschema:"handle or id of the instance"`
}

// endpoint is a port of an instance that is open on the host.
type endpoint struct {
	GuestPort  int    `json:"guest_port"`
	PublicPort int    `json:"public_port"`
	Protocol   string `json:"protocol"`
	URL        string `json:"url"`
}

func endpointsOf(in []api.Endpoint) []endpoint {
	out := []endpoint{}
	for _, e := range in {
		out = append(out, endpoint{e.GuestPort, e.PublicPort, e.Protocol, e.URL()})
	}
	return out
}

// machine is an instance, in short.
type machine struct {
	Handle    string     `json:"handle"`
	ID        string     `json:"id"`
	State     string     `json:"state" jsonschema:"starting, running, paused or stopped; paused and stopped ones wake by themselves when they are used, as long as they are enabled"`
	Enabled   bool       `json:"enabled" jsonschema:"false after instance_disable: nothing but instance_start wakes it"`
	Command   []string   `json:"command"`
	Image     string     `json:"image,omitempty"`
	Kit       string     `json:"kit,omitempty"`
	Endpoints []endpoint `json:"endpoints"`
	CreatedAt time.Time  `json:"created_at"`
	StoppedAt *time.Time `json:"stopped_at,omitempty"`
}

func machineOf(i api.Instance) machine {
	return machine{
		Handle: i.Handle, ID: i.ID, State: i.State, Enabled: i.Enabled, Command: append([]string{}, i.Command...),
		Image: i.ImageRef, Kit: i.Kit, Endpoints: endpointsOf(i.Endpoints), CreatedAt: i.CreatedAt, StoppedAt: i.StoppedAt,
	}
}

// machineDetails is what there is to know of an instance.
type machineDetails struct {
	machine
	Hibernated   bool     `json:"hibernated" jsonschema:"its memory is on disk, and it will wake where it was"`
	MemoryMB     int64    `json:"memory_mb"`
	VCPUs        int      `json:"vcpus"`
	DiskMB       int64    `json:"disk_mb"`
	MemoryUsed   int64    `json:"memory_used" jsonschema:"bytes of the user's machine, now"`
	DiskUsed     int64    `json:"disk_used" jsonschema:"bytes of the user's machine"`
	PauseAfterS  int64    `json:"pause_after_s" jsonschema:"seconds of idleness before it is paused; 0 is never"`
	StopAfterS   int64    `json:"stop_after_s" jsonschema:"seconds in pause before it is hibernated; 0 is never"`
	Isolation    string   `json:"isolation" jsonschema:"hardware, or emulated where this machine has no hardware virtualization"`
	Egress       string   `json:"egress" jsonschema:"what it may reach: none, public or all"`
	AllowHosts   []string `json:"allow_hosts,omitempty"`
	Workspace    string   `json:"workspace" jsonschema:"what is at /workspace: a name, or a folder of the user's machine"`
	WorkspaceDir string   `json:"workspace_dir" jsonschema:"the folder of the user's machine that is at /workspace"`
	SecretKeys   []string `json:"secret_keys,omitempty"`
	Holds        []string `json:"holds,omitempty" jsonschema:"what keeps it awake"`
	Busy         string   `json:"busy,omitempty" jsonschema:"what its programs do that keeps it awake"`
	Why          string   `json:"why,omitempty" jsonschema:"why it is stopped"`
	Trouble      string   `json:"trouble,omitempty" jsonschema:"what it suffers from, and what to do"`
}

func detailsOf(i api.InstanceInfo) machineDetails {
	d := machineDetails{
		machine: machineOf(i.Instance), Hibernated: i.Hibernated, MemoryMB: i.MemoryMB, VCPUs: i.VCPUs, DiskMB: i.DiskMB,
		MemoryUsed: i.MemoryUsed, DiskUsed: i.DiskUsed, PauseAfterS: i.PauseAfter, StopAfterS: i.StopAfter,
		Isolation: i.Isolation, Egress: i.Egress, AllowHosts: i.AllowHosts,
		Workspace: i.Workspace, WorkspaceDir: i.WorkspaceDir, SecretKeys: i.SecretKeys,
		Busy: i.Busy, Why: i.Why, Trouble: i.Trouble,
	}
	for _, h := range i.Holds {
		d.Holds = append(d.Holds, h.Owner)
	}
	return d
}

// stateDisabled is a state to models: one in which nothing wakes an instance.
const stateDisabled = "disabled"

type listInput struct {
	State string `json:"state,omitempty" jsonschema:"only instances in this state"`
}

type listOutput struct {
	Instances []machine `json:"instances"`
}

func (s *Server) addInstances() {
	add(s, startTool(s))
	add(s, tool[listInput, listOutput]{
		name: "instance_list", title: "List instances", effect: reads,
		about: "List all instances, those that run first, with their state and the URLs of their open ports.",
		refine: func(in *jsonschema.Schema) {
			enum(in, "state", api.StateStarting, api.StateRunning, api.StatePaused, api.StateStopped, stateDisabled)
		},
		do: func(ctx context.Context, _ *call, in listInput) (listOutput, error) {
			state, disabled := in.State, in.State == stateDisabled
			if disabled {
				state = ""
			}
			all, err := s.api.List(ctx, state)
			out := listOutput{Instances: []machine{}}
			for _, i := range all {
				if !disabled || !i.Enabled {
					out.Instances = append(out.Instances, machineOf(i))
				}
			}
			return out, err
		},
	})
	add(s, tool[named, machineDetails]{
		name: "instance_info", title: "Inspect an instance", effect: reads,
		about: "Tell all about one instance: state, ports and URLs, memory and disk in use, workspace, what keeps it awake, and why it is stopped. " +
			"It does not wake the instance.",
		do: func(ctx context.Context, _ *call, in named) (machineDetails, error) {
			i, err := s.api.Info(ctx, string(in.Name))
			return detailsOf(i), err
		},
	})
}
