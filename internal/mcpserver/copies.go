package mcpserver

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/xfeldman/aegisvm/api"
)

type forkInput struct {
	Name  ref      `json:"name" jsonschema:"handle or id of the instance"`
	Count int      `json:"count,omitempty" jsonschema:"how many forks, named after their ids; 1 without it"`
	Names []string `json:"names,omitempty" jsonschema:"handles for the forks, one for each, in the place of count"`
}

type forked struct {
	Handle    string     `json:"handle"`
	ID        string     `json:"id"`
	Endpoints []endpoint `json:"endpoints"`
	Cold      bool       `json:"cold,omitempty" jsonschema:"the source was stopped: the fork has its disk, and its command was started anew"`
	Workspace string     `json:"workspace" jsonschema:"copied, or shared: fork and source then work in the same folder, without locks between them"`
}

type forkOutput struct {
	Forks []forked `json:"forks"`
}

func (o forkOutput) text() string {
	var b strings.Builder
	for _, f := range o.Forks {
		fmt.Fprintf(&b, "%s (%s), workspace %s", f.Handle, f.ID, f.Workspace)
		if f.Cold {
			b.WriteString(", started anew: the source was stopped")
		}
		b.WriteString("\n")
		for _, e := range f.Endpoints {
			fmt.Fprintf(&b, "  port %d: %s\n", e.GuestPort, e.URL)
		}
	}
	return b.String()
}

type snapshotInput struct {
	Name     ref    `json:"name" jsonschema:"handle or id of the instance"`
	Snapshot string `json:"snapshot,omitempty" jsonschema:"name for the snapshot; without it its id is its name"`
}

type snapshotRef struct {
	Snapshot ref `json:"snapshot" jsonschema:"name or id of the snapshot"`
}

type restoreInput struct {
	Name     ref `json:"name" jsonschema:"handle or id of the instance"`
	Snapshot ref `json:"snapshot" jsonschema:"name or id of a snapshot of this instance"`
}

type snapshot struct {
	Name      string    `json:"name"`
	ID        string    `json:"id"`
	Instance  string    `json:"instance" jsonschema:"handle of the instance that it was taken of"`
	Size      int64     `json:"size" jsonschema:"bytes on the user's machine"`
	CreatedAt time.Time `json:"created_at"`
	Cold      bool      `json:"cold,omitempty" jsonschema:"it has no memory: what starts from it starts its command anew"`
}

func snapshotOf(s api.Snapshot) snapshot {
	return snapshot{s.Name, s.ID, s.Handle, s.Size, s.CreatedAt, s.Cold}
}

type snapshots struct {
	Snapshots []snapshot `json:"snapshots"`
}

type removed struct {
	Name   string `json:"name"`
	Status string `json:"status"`
}

// addCopies offers forks and snapshots.
func (s *Server) addCopies() {
	add(s, tool[forkInput, forkOutput]{
		name: "instance_fork", title: "Fork an instance", effect: adds,
		about: "Make copies of an instance as it is at this moment: same memory, running processes and disk, each going on by itself, with ports of its own. " +
			"Prepare one instance, then fork it to try alternatives side by side. Returns when the forks run.",
		refine: func(in *jsonschema.Schema) {
			zero := 0.0
			in.Properties["count"].Minimum = &zero
		},
		do: func(ctx context.Context, c *call, in forkInput) (forkOutput, error) {
			c.progress.say("forking %s", in.Name)
			made, err := s.api.Fork(ctx, string(in.Name), api.ForkRequest{Names: in.Names, Count: in.Count})
			out := forkOutput{Forks: []forked{}}
			for _, f := range made {
				out.Forks = append(out.Forks, forked{f.Handle, f.ID, endpointsOf(f.Endpoints), f.Cold, f.Workspace})
			}
			return out, err
		},
	})
	add(s, tool[snapshotInput, snapshot]{
		name: "snapshot_create", title: "Take a snapshot", effect: adds,
		about: "Keep an instance as it is at this moment, memory and disk. The instance goes on. instance_restore takes it back there; " +
			"instance_start with snapshot begins a further instance from it.",
		do: func(ctx context.Context, c *call, in snapshotInput) (snapshot, error) {
			c.progress.say("saving %s", in.Name)
			made, err := s.api.Snapshot(ctx, string(in.Name), in.Snapshot)
			return snapshotOf(made), err
		},
	})
	add(s, tool[struct{}, snapshots]{
		name: "snapshot_list", title: "List snapshots", effect: reads,
		about: "List all snapshots, oldest first.",
		do: func(ctx context.Context, _ *call, _ struct{}) (snapshots, error) {
			all, err := s.api.Snapshots(ctx)
			out := snapshots{Snapshots: []snapshot{}}
			for _, v := range all {
				out.Snapshots = append(out.Snapshots, snapshotOf(v))
			}
			return out, err
		},
	})
	add(s, tool[snapshotRef, removed]{
		name: "snapshot_delete", title: "Delete a snapshot", effect: destroys,
		about: "Remove a snapshot. Instances that were started from it go on.",
		do: func(ctx context.Context, _ *call, in snapshotRef) (removed, error) {
			o, err := s.api.DeleteSnapshot(ctx, string(in.Snapshot))
			return removed{string(in.Snapshot), o.Status}, err
		},
	})
	add(s, tool[restoreInput, changed]{
		name: "instance_restore", title: "Restore an instance", effect: destroys,
		about: "Take an instance back to a snapshot of itself and return when its command goes on there. What it is now is lost.",
		do: func(ctx context.Context, c *call, in restoreInput) (changed, error) {
			return settle(ctx, c, string(in.Name), "restoring", func(ctx context.Context, name string) (api.Outcome, error) {
				return s.api.Restore(ctx, name, string(in.Snapshot))
			})
		},
	})
}
