package httpapi

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"iter"
	"net/http"
	"slices"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/config"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/size"
)

// Instances is what the API needs of the core for persistent instances. *instance.Set
// is one. A ref is an id or a handle.
type Instances interface {
	Create(ctx context.Context, spec instance.Spec) (instance.View, error)
	Launch(ctx context.Context, spec instance.Spec) (instance.View, error)
	List() []instance.View
	Get(ref string) (instance.View, error)
	Start(ctx context.Context, ref string) error
	Resume(ctx context.Context, ref string) error
	Pause(ctx context.Context, ref string) error
	Stop(ctx context.Context, ref string) error
	Hibernate(ctx context.Context, ref string) error
	Disable(ctx context.Context, ref string) error
	Restart(ctx context.Context, ref string) error
	Delete(ctx context.Context, ref string) error
	Expose(ctx context.Context, ref string, e instance.Expose) (instance.Expose, error)
	Unexpose(ctx context.Context, ref string, guestPort uint16) error
	Adjust(ctx context.Context, ref string, c instance.Settings) (instance.View, error)
	Prune(ctx context.Context, age time.Duration) ([]instance.ID, error)
	Exec(ctx context.Context, ref string, spec instance.ExecSpec) (*instance.Exec, error)
	Lines(ctx context.Context, ref string, q instance.LogQuery) (iter.Seq2[instance.LogLine, error], error)
	CopyOut(ctx context.Context, ref string, req guestproto.Copy, w io.Writer) ([]string, error)
	CopyIn(ctx context.Context, ref string, req guestproto.Copy, r io.ReadCloser) ([]string, error)
	Files(ref string) (instance.Files, error)
	SetSecrets(ctx context.Context, ref string, names []string) (instance.Granted, error)
	AddSecrets(ctx context.Context, ref string, names []string) (instance.Granted, error)
	Commit(ctx context.Context, ref, name string) (instance.Base, error)
	Warm(ctx context.Context, image string) error
	Watch() (<-chan instance.Change, func())

	Snapshots
}

// How long nothing must hold an instance before it is paused, and how long it must
// have been paused before its memory goes to disk, unless its creator says otherwise.
const (
	defaultPauseAfter = time.Minute
	defaultStopAfter  = 5 * time.Minute
)

// createInstance answers POST /v1/instances. Unless it is asked to, it does not wait
// for the start; that of a handle that exists and is stopped begins it anew.
func (s *Server) createInstance(w http.ResponseWriter, r *http.Request) error {
	var req api.CreateRequest
	if err := decode(r, &req); err != nil {
		return err
	}
	if v, err := s.conf.Instances.Get(req.Handle); err == nil && req.Handle != "" {
		return s.startAgain(w, r, v, req)
	}
	if req.Snapshot != "" && req.Kit != "" {
		return fault.New(fault.Invalid, "a start from a snapshot has the kit of the snapshot").WithHint("leave out the kit")
	}
	if req.Snapshot != "" {
		return s.createFromSnapshot(w, r, req)
	}
	if err := s.checkVMM(req.VMM); err != nil {
		return err
	}
	spec, err := createSpec(req)
	if err != nil {
		return err
	}
	create := s.conf.Instances.Create
	if req.Wait {
		create = s.conf.Instances.Launch
	}
	v, err := create(r.Context(), spec)
	if err != nil {
		return notStarted(v, err)
	}
	s.answer(w, r, http.StatusCreated, created(v, req.Wait))
	return nil
}

// notStarted names the instance that is left of a start that failed, if one is.
func notStarted(v instance.View, err error) error {
	if v.ID == "" {
		return err
	}
	err = fmt.Errorf("%s did not start, and stays as it is: %w", v.Spec.Handle, err)
	if fault.HintOf(err) != "" {
		return err
	}
	return fault.Wrap(fault.KindOf(err), err, "").
		WithHint("aegis instance info %s; aegis instance delete %s", v.Spec.Handle, v.Spec.Handle)
}

// startAgain starts an instance that is stopped, with the request's secrets next to its
// own. Without Wait the start goes on when
// the client leaves; what becomes of it is in the instance's info and log.
func (s *Server) startAgain(w http.ResponseWriter, r *http.Request, v instance.View, req api.CreateRequest) error {
	if v.State != instance.Stopped || req.Snapshot != "" {
		return fault.New(fault.Conflict, "the name %q is taken by %s, which is %s", v.Spec.Handle, v.ID, v.State.Wire()).
			WithHint("choose another name, or: aegis instance restart %s", v.Spec.Handle)
	}
	if len(req.Secrets) > 0 {
		if _, err := s.conf.Instances.AddSecrets(r.Context(), string(v.ID), req.Secrets); err != nil {
			return err
		}
	}
	if req.Wait {
		if err := s.conf.Instances.Start(r.Context(), string(v.ID)); err != nil {
			return notStarted(v, err)
		}
	} else {
		ctx := context.WithoutCancel(r.Context())
		s.streams.Go(func() { _ = s.conf.Instances.Start(ctx, string(v.ID)) }) // see above
	}
	s.answer(w, r, http.StatusOK, created(v, req.Wait))
	return nil
}

func created(v instance.View, waited bool) api.Created {
	state := api.StateStarting
	if waited {
		state = api.StateRunning
	}
	return api.Created{
		ID: string(v.ID), State: state, Command: v.Spec.Command, Handle: v.Spec.Handle, ImageRef: v.Spec.Image, Kit: v.Spec.Kit.Name,
		Endpoints: endpoints(v),
	}
}

func createSpec(req api.CreateRequest) (instance.Spec, error) {
	spec, err := specOf(api.RunRequest{
		Command: req.Command, Env: req.Env, Secrets: req.Secrets, Handle: req.Handle, Workdir: req.Workdir, User: req.User,
		ImageRef: req.ImageRef, Pull: req.Pull, MemoryMB: req.MemoryMB, VCPUs: req.VCPUs, DiskMB: req.DiskMB, VMM: req.VMM,
		Expose: req.Expose, Egress: req.Egress, AllowHosts: req.AllowHosts,
		Workspace: req.Workspace, WorkspaceReadOnly: req.WorkspaceReadOnly, Mounts: req.Mounts,
		Kit: req.Kit, Capabilities: req.Capabilities,
		PauseAfterS: req.PauseAfterS, StopAfterS: req.StopAfterS,
	})
	if err != nil {
		return instance.Spec{}, err
	}
	spec.Ephemeral = false
	if req.PauseAfterS == nil {
		spec.PauseAfter = defaultPauseAfter
	}
	if req.StopAfterS == nil {
		spec.StopAfter = defaultStopAfter
	}
	spec.IdlePolicy = instance.IdlePolicy(req.IdlePolicy)
	return spec, nil
}

// listInstances answers GET /v1/instances.
func (s *Server) listInstances(w http.ResponseWriter, r *http.Request) error {
	want := r.URL.Query().Get("state")
	out := []api.Instance{}
	for _, v := range s.conf.Instances.List() {
		if line := instanceOf(v); want == "" || line.State == want {
			out = append(out, line)
		}
	}
	slices.SortStableFunc(out, func(a, b api.Instance) int { return cmp.Compare(rank(a), rank(b)) })
	s.answer(w, r, http.StatusOK, out)
	return nil
}

// rank orders a list: what runs comes first.
func rank(i api.Instance) int {
	order := []string{api.StateRunning, api.StateStarting, api.StatePaused, api.StateStopped}
	n := slices.Index(order, i.State)
	if !i.Enabled {
		n += len(order)
	}
	return n
}

func instanceOf(v instance.View) api.Instance {
	return api.Instance{
		ID: string(v.ID), Handle: v.Spec.Handle, State: v.State.Wire(), Enabled: v.Enabled,
		Command: v.Spec.Command, ImageRef: v.Spec.Image, Kit: v.Spec.Kit.Name,
		CreatedAt: v.Created, UpdatedAt: v.Updated, LastActiveAt: timeOf(v.Active), StoppedAt: timeOf(v.Stopped),
		ParentID:          string(v.Spec.Parent),
		ActiveConnections: v.Clients, Endpoints: endpoints(v),
	}
}

func timeOf(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// instanceInfo answers GET /v1/instances/{id}.
func (s *Server) instanceInfo(w http.ResponseWriter, r *http.Request) error {
	v, err := s.conf.Instances.Get(r.PathValue("id"))
	if err != nil {
		return err
	}
	s.answer(w, r, http.StatusOK, s.infoOf(v))
	return nil
}

func (s *Server) infoOf(v instance.View) api.InstanceInfo {
	status := s.conf.Status()
	info := api.InstanceInfo{
		Instance: instanceOf(v), ImageID: v.Spec.Base.ID, Hibernated: v.Hibernated,
		Driver: status.Backend, Isolation: status.Isolation, HarnessVersion: v.Harness,
		MemoryMB: v.Spec.Memory.MiB(), VCPUs: v.Spec.VCPUs, DiskMB: v.Spec.Disk.MiB(),
		PauseAfter: int64(v.Spec.PauseAfter / time.Second), StopAfter: int64(v.Spec.StopAfter / time.Second), Why: v.Why, Holds: []api.Hold{},
		IdlePolicy: cmp.Or(string(v.Spec.IdlePolicy), "default"), Busy: v.Busy(),
		Egress: egressOf(v.Spec.Egress), AllowHosts: v.Spec.Egress.Allow,
		ExposePorts: []int{}, SecretKeys: names(v.Spec.Secrets),
		Workspace: cmp.Or(v.Spec.Folders.Workspace, v.Workspace), WorkspaceDir: v.Workspace,
		WorkspaceReadOnly: v.Spec.Folders.ReadOnly, Mounts: mountsOf(v.Spec.Folders),
		Capabilities: v.Spec.Capabilities, LeaseStatus: leaseOf(v.Lease),
		KitVersion: v.Spec.Kit.Version, GatewayRunning: s.conf.Kits != nil && s.conf.Kits.Running(string(v.ID)),
	}
	for _, e := range v.Spec.Expose {
		info.ExposePorts = append(info.ExposePorts, int(e.Guest))
	}
	info.Traffic, info.Denials = trafficOf(v.Traffic()), denialsOf(v.Denials())
	for _, h := range v.Holds {
		info.Holds = append(info.Holds, api.Hold{Owner: h.Owner, Since: h.Since})
	}
	if err := v.Trouble(); err != nil {
		info.Trouble = err.Error() + "; " + fault.HintOf(err)
	}
	info.MemoryUsed, info.DiskUsed = usage(v.Memory), usage(v.DiskUse)
	return info
}

// egressOf returns the mode that is in force.
func egressOf(e instance.Egress) string {
	switch {
	case e.Mode != "":
		return e.Mode
	case len(e.Allow) > 0:
		return "none"
	}
	return "public"
}

// usage measures; what cannot be measured now (a machine that just ended) is 0.
func usage(measure func() (size.Bytes, error)) int64 {
	n, err := measure()
	if err != nil {
		return 0
	}
	return int64(n)
}

// change returns the handler of a request that brings an instance into a state. The
// answer comes when it is there: nothing is reported that did not happen.
func (s *Server) change(do func(Instances, context.Context, string) error, status string) handle {
	return func(w http.ResponseWriter, r *http.Request) error {
		v, err := s.conf.Instances.Get(r.PathValue("id"))
		if err != nil {
			return err
		}
		if err := do(s.conf.Instances, r.Context(), string(v.ID)); err != nil {
			return err
		}
		out := api.Outcome{Status: status, ID: string(v.ID)}
		if now, err := s.conf.Instances.Get(out.ID); err == nil { // or it is deleted
			out.State = now.State.Wire()
		}
		s.answer(w, r, http.StatusOK, out)
		return nil
	}
}

// stop answers POST /v1/instances/{id}/stop, with or without a body.
func (s *Server) stop(w http.ResponseWriter, r *http.Request) error {
	var req api.StopRequest
	if r.ContentLength != 0 {
		if err := decode(r, &req); err != nil {
			return err
		}
	}
	if req.Hibernate {
		return s.change(Instances.Hibernate, api.StateStopped)(w, r)
	}
	return s.change(Instances.Stop, api.StateStopped)(w, r)
}

// pruneInstances answers POST /v1/instances/prune.
func (s *Server) pruneInstances(w http.ResponseWriter, r *http.Request) error {
	age, err := config.ParseDuration(cmp.Or(r.URL.Query().Get("older_than"), "7d"))
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "older_than")
	}
	ids, err := s.conf.Instances.Prune(r.Context(), age)
	if err != nil {
		return err
	}
	out := api.Pruned{Pruned: len(ids), IDs: []string{}}
	for _, id := range ids {
		out.IDs = append(out.IDs, string(id))
	}
	s.answer(w, r, http.StatusOK, out)
	return nil
}
