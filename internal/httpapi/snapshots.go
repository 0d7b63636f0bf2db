package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
)

// Snapshots is what the API needs of the core for forks and snapshots. *instance.Set is
// one.
type Snapshots interface {
	Fork(ctx context.Context, ref string, f instance.ForkSpec) (forks []instance.View, cold bool, err error)
	Snapshot(ctx context.Context, ref, name string) (instance.Snapshot, error)
	Snapshots(ctx context.Context) ([]instance.Snapshot, error)
	DeleteSnapshot(ctx context.Context, ref string) error
	CreateFrom(ctx context.Context, snapshot string, f instance.FromSnapshot, wait bool) (instance.View, error)
	Restore(ctx context.Context, ref, snapshot string) error
}

// fork answers POST /v1/instances/{id}/fork.
func (s *Server) fork(w http.ResponseWriter, r *http.Request) error {
	var req api.ForkRequest
	if err := decode(r, &req); err != nil {
		return err
	}
	exposed, err := exposesOf(req.Expose)
	if err != nil {
		return err
	}
	names := req.Names
	switch {
	case len(names) > 0 && req.Count != 0 && req.Count != len(names):
		return fault.New(fault.Invalid, "%d names for %d forks", len(names), req.Count)
	case req.Count < 0 || req.Count > instance.MaxForks:
		return fault.New(fault.Invalid, "%d forks cannot be made at a time", req.Count).WithHint("make 1 to %d", instance.MaxForks)
	case len(names) == 0:
		names = make([]string, max(1, req.Count))
	}
	forks, cold, err := s.conf.Instances.Fork(r.Context(), r.PathValue("id"), instance.ForkSpec{Names: names, Expose: exposed, Secrets: req.Secrets})
	if err != nil {
		return err
	}
	out := []api.Forked{}
	for _, v := range forks {
		workspace := "copied"
		if !v.Spec.Folders.Own() {
			workspace = "shared"
		}
		out = append(out, api.Forked{ID: string(v.ID), Handle: v.Spec.Handle, Endpoints: endpoints(v), Cold: cold, Workspace: workspace})
	}
	s.answer(w, r, http.StatusCreated, out)
	return nil
}

// makeSnapshot answers POST /v1/instances/{id}/snapshots, with or without a body.
func (s *Server) makeSnapshot(w http.ResponseWriter, r *http.Request) error {
	var req api.SnapshotRequest
	if r.ContentLength != 0 {
		if err := decode(r, &req); err != nil {
			return err
		}
	}
	snap, err := s.conf.Instances.Snapshot(r.Context(), r.PathValue("id"), req.Name)
	if err != nil {
		return err
	}
	s.answer(w, r, http.StatusCreated, snapshotOf(snap))
	return nil
}

// listSnapshots answers GET /v1/snapshots.
func (s *Server) listSnapshots(w http.ResponseWriter, r *http.Request) error {
	all, err := s.conf.Instances.Snapshots(r.Context())
	if err != nil {
		return err
	}
	out := []api.Snapshot{}
	for _, snap := range all {
		out = append(out, snapshotOf(snap))
	}
	s.answer(w, r, http.StatusOK, out)
	return nil
}

func snapshotOf(s instance.Snapshot) api.Snapshot {
	return api.Snapshot{
		ID: string(s.ID), Name: s.Name, Size: int64(s.Size), CreatedAt: s.Created, InstanceID: string(s.Origin.ID), Handle: s.Origin.Spec.Handle,
		Command: s.Origin.Spec.Command, MemoryMB: s.Origin.Spec.Memory.MiB(), VCPUs: s.Origin.Spec.VCPUs, Cold: s.Cold,
	}
}

// deleteSnapshot answers DELETE /v1/snapshots/{id}.
func (s *Server) deleteSnapshot(w http.ResponseWriter, r *http.Request) error {
	if err := s.conf.Instances.DeleteSnapshot(r.Context(), r.PathValue("id")); err != nil {
		return err
	}
	s.answer(w, r, http.StatusOK, api.Outcome{Status: "deleted", ID: r.PathValue("id")})
	return nil
}

// restore answers POST /v1/instances/{id}/restore.
func (s *Server) restore(w http.ResponseWriter, r *http.Request) error {
	var req api.RestoreRequest
	if err := decode(r, &req); err != nil {
		return err
	}
	if req.Snapshot == "" {
		return fault.New(fault.Invalid, "no snapshot to go back to").WithHint("see: aegis snapshot list")
	}
	return s.change(func(i Instances, ctx context.Context, ref string) error {
		return i.Restore(ctx, ref, req.Snapshot)
	}, api.StateRunning)(w, r)
}

// createFromSnapshot answers POST /v1/instances with a snapshot. What it was taken with
// cannot be chosen again.
func (s *Server) createFromSnapshot(w http.ResponseWriter, r *http.Request, req api.CreateRequest) error {
	for _, x := range []struct {
		name  string
		given bool
	}{
		{"a command", len(req.Command) > 0},
		{"an image", req.ImageRef != ""},
		{"an environment", len(req.Env) > 0},
		{"a working directory", req.Workdir != ""},
		{"a user", req.User != ""},
		{"a set of capabilities", req.Capabilities != nil},
		{"a workspace", req.Workspace != "" || len(req.Mounts) > 0},
	} {
		if x.given {
			return fault.New(fault.Invalid, "a start from a snapshot takes no %s: its program goes on", x.name[2:])
		}
	}
	if err := s.checkVMM(req.VMM); err != nil {
		return err
	}
	spec, err := createSpec(req)
	if err != nil {
		return err
	}
	from := instance.FromSnapshot{
		Handle: req.Handle, Memory: spec.Memory, VCPUs: spec.VCPUs, Disk: spec.Disk, Expose: spec.Expose, Secrets: spec.Secrets,
	}
	if req.Egress != "" || len(req.AllowHosts) > 0 {
		from.Egress = &spec.Egress
	}
	for _, p := range []struct {
		given *int64
		from  time.Duration
		to    **time.Duration
	}{{req.PauseAfterS, spec.PauseAfter, &from.PauseAfter}, {req.StopAfterS, spec.StopAfter, &from.StopAfter}} {
		if p.given != nil {
			*p.to = &p.from
		}
	}
	v, err := s.conf.Instances.CreateFrom(r.Context(), req.Snapshot, from, req.Wait)
	if err != nil {
		return notStarted(v, err)
	}
	s.answer(w, r, http.StatusCreated, created(v, req.Wait))
	return nil
}
