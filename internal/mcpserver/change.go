package mcpserver

import (
	"context"

	"github.com/xfeldman/aegisvm/api"
)

// changed is what became of an instance.
type changed struct {
	Name   string `json:"name"`
	ID     string `json:"id,omitempty"`
	Status string `json:"status" jsonschema:"what was done"`
	State  string `json:"state,omitempty" jsonschema:"the instance's state now"`
}

type stopInput struct {
	Name      ref  `json:"name" jsonschema:"handle or id of the instance"`
	Hibernate bool `json:"hibernate,omitempty" jsonschema:"save its memory first, so that it wakes where it was; without it its programs are ended"`
}

// change is a tool that brings an instance into a state.
func (s *Server) change(name, title string, e effect, about string, doing string, do func(context.Context, string) (api.Outcome, error)) {
	add(s, tool[named, changed]{
		name: name, title: title, effect: e, about: about,
		do: func(ctx context.Context, c *call, in named) (changed, error) {
			return settle(ctx, c, string(in.Name), doing, do)
		},
	})
}

func settle(ctx context.Context, c *call, name, doing string, do func(context.Context, string) (api.Outcome, error)) (changed, error) {
	c.progress.say("%s %s", doing, name)
	o, err := do(ctx, name)
	return changed{Name: name, ID: o.ID, Status: o.Status, State: o.State}, err
}

func (s *Server) addChanges() {
	s.change("instance_disable", "Disable an instance", sets,
		"Stop an instance, close its ports, and let nothing wake it until instance_start with its name. Its disk stays.", "disabling", s.api.Disable)
	s.change("instance_restart", "Restart an instance", sets,
		"End the VM of an instance and start its command anew, on the same disk. What was in memory is lost. Returns when the command runs. "+
			"An instance that is asleep needs no restart.", "restarting", s.api.Restart)
	s.change("instance_delete", "Delete an instance", destroys,
		"End an instance and remove all of it: disk, memory, logs, and its workspace unless that has a name or is a folder of the user's. This cannot be undone.",
		"deleting", s.api.Delete)
	s.change("instance_pause", "Pause an instance", sets,
		"Freeze an instance where it is, keeping its memory. Any use of it, or instance_resume, lets it go on. Idle instances are paused by themselves.",
		"pausing", s.api.Pause)
	s.change("instance_resume", "Wake an instance", sets,
		"Wake an instance that is paused, hibernated or stopped, and return when it runs. Using it (exec, a connection, files) wakes it too.",
		"waking", s.api.Resume)
	add(s, tool[stopInput, changed]{
		name: "instance_stop", title: "Stop an instance", effect: sets,
		about: "End the VM of an instance, which stays wakeable: the next use starts its command again, or lets it go on where it was if hibernate was set. " +
			"To save resources there is no need to: idle instances hibernate by themselves.",
		do: func(ctx context.Context, c *call, in stopInput) (changed, error) {
			do := s.api.Stop
			if in.Hibernate {
				do = s.api.Hibernate
			}
			return settle(ctx, c, string(in.Name), "stopping", do)
		},
	})
}
