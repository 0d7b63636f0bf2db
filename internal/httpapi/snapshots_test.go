package httpapi

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/size"
)

// stubForks is a core that notes what it is asked for. Nothing else of it may be called.
type stubForks struct {
	Instances

	ref   string
	fork  instance.ForkSpec
	from  instance.FromSnapshot
	wait  bool
	name  string
	cold  bool
	snaps []instance.Snapshot
}

func view(id, handle string, folders instance.Folders) instance.View {
	return instance.View{Record: instance.Record{ID: instance.ID(id), Spec: instance.Spec{
		Handle: handle, Expose: []instance.Expose{{Guest: 80, Public: 20001, Protocol: instance.HTTP}}, Folders: folders,
	}}}
}

func (s *stubForks) Get(ref string) (instance.View, error) {
	if ref != "web" {
		return instance.View{}, fault.New(fault.NotFound, "there is no instance %q", ref)
	}
	return view("inst-1", "web", instance.Folders{}), nil
}

func (s *stubForks) Fork(_ context.Context, ref string, f instance.ForkSpec) ([]instance.View, bool, error) {
	s.ref, s.fork = ref, f
	var out []instance.View
	for i, n := range f.Names {
		out = append(out, view(fmt.Sprintf("inst-%d", 2+i), n, instance.Folders{Workspace: []string{"", "data"}[i%2]}))
	}
	return out, s.cold, nil
}

func (s *stubForks) Snapshot(_ context.Context, ref, name string) (instance.Snapshot, error) {
	s.ref, s.name = ref, name
	return instance.Snapshot{
		ID: "snap-1", Name: name, Created: time.Unix(1, 0), Size: 7, Cold: s.cold,
		Origin: instance.Origin{ID: "inst-1", Spec: instance.Spec{Handle: "web", Command: []string{"serve"}, Memory: size.GiB, VCPUs: 2}},
	}, nil
}

func (s *stubForks) Snapshots(context.Context) ([]instance.Snapshot, error) { return s.snaps, nil }

func (s *stubForks) DeleteSnapshot(_ context.Context, ref string) error {
	if ref != "a b" {
		return fault.New(fault.NotFound, "there is no snapshot %q", ref)
	}
	return nil
}

func (s *stubForks) CreateFrom(_ context.Context, ref string, f instance.FromSnapshot, wait bool) (instance.View, error) {
	s.ref, s.from, s.wait = ref, f, wait
	return view("inst-9", f.Handle, instance.Folders{}), nil
}

func (s *stubForks) Restore(_ context.Context, ref, snapshot string) error {
	s.ref, s.name = ref, snapshot
	return nil
}

func serveForks(t *testing.T) (*client.Client, *stubForks) {
	t.Helper()
	s := &stubForks{}
	c, _, _ := serveConfig(t, &stubRunner{}, Config{Instances: s}, os.Getuid())
	return c, s
}

func TestFork(t *testing.T) {
	c, s := serveForks(t)
	forks, err := c.Fork(t.Context(), "web", api.ForkRequest{Names: []string{"a", "b"}, Expose: []api.ExposeRequest{{Port: 81}}, Secrets: []string{"KEY"}})
	if err != nil || len(forks) != 2 || forks[0].ID != "inst-2" || forks[1].Handle != "b" || forks[0].Endpoints[0].PublicPort != 20001 || forks[0].Cold {
		t.Fatalf("%+v, %v", forks, err)
	}
	if forks[0].Workspace != "copied" || forks[1].Workspace != "shared" {
		t.Errorf("workspaces %q, %q", forks[0].Workspace, forks[1].Workspace)
	}
	if s.ref != "web" || !slices.Equal(s.fork.Secrets, []string{"KEY"}) || s.fork.Expose[0].Guest != 81 {
		t.Errorf("asked for %q, %+v", s.ref, s.fork)
	}
	s.cold = true
	if forks, err = c.Fork(t.Context(), "web", api.ForkRequest{}); err != nil || len(forks) != 1 || !forks[0].Cold {
		t.Errorf("%+v, %v", forks, err)
	}
	if forks, err = c.Fork(t.Context(), "web", api.ForkRequest{Count: 3}); err != nil || len(forks) != 3 {
		t.Errorf("%+v, %v", forks, err)
	}
	for _, req := range []api.ForkRequest{{Count: -1}, {Count: instance.MaxForks + 1}, {Names: []string{"a"}, Count: 2}, {Expose: []api.ExposeRequest{{Port: 1 << 20}}}} {
		_, err := c.Fork(t.Context(), "web", req)
		wantFault(t, err, fault.Invalid, "")
	}
}

func TestSnapshotRoutes(t *testing.T) {
	c, s := serveForks(t)
	snap, err := c.Snapshot(t.Context(), "web", "then")
	want := api.Snapshot{ID: "snap-1", Name: "then", Size: 7, CreatedAt: time.Unix(1, 0), InstanceID: "inst-1", Handle: "web", Command: []string{"serve"}, MemoryMB: 1024, VCPUs: 2}
	if err != nil || snap.CreatedAt.Unix() != 1 {
		t.Fatalf("%+v, %v", snap, err)
	}
	if snap.CreatedAt = want.CreatedAt; fmt.Sprint(snap) != fmt.Sprint(want) {
		t.Errorf("%+v, not %+v", snap, want)
	}
	if all, err := c.Snapshots(t.Context()); err != nil || all == nil || len(all) != 0 {
		t.Errorf("no snapshots: %v, %v", all, err)
	}
	s.snaps = make([]instance.Snapshot, 2)
	if all, err := c.Snapshots(t.Context()); err != nil || len(all) != 2 {
		t.Errorf("%v, %v", all, err)
	}
	if out, err := c.DeleteSnapshot(t.Context(), "a b"); err != nil || out.Status != "deleted" {
		t.Errorf("%+v, %v", out, err)
	}
	_, err = c.DeleteSnapshot(t.Context(), "other")
	wantFault(t, err, fault.NotFound, "no snapshot")
	out, err := c.Restore(t.Context(), "web", "then")
	if err != nil || out.Status != api.StateRunning || s.ref != "inst-1" || s.name != "then" {
		t.Errorf("%+v, %v; asked for %s, %s", out, err, s.ref, s.name)
	}
	_, err = c.Restore(t.Context(), "web", "")
	wantFault(t, err, fault.Invalid, "no snapshot to go back to")
	_, err = c.Restore(t.Context(), "other", "then")
	wantFault(t, err, fault.NotFound, "")
}

func TestStartFromSnapshot(t *testing.T) {
	c, s := serveForks(t)
	never := int64(0)
	made, again, err := c.Launch(t.Context(), api.CreateRequest{
		Snapshot: "then", Handle: "trial", MemoryMB: 512, Secrets: []string{"KEY"}, PauseAfterS: &never, Egress: "none", Expose: []api.ExposeRequest{{Port: 81}},
	})
	if err != nil || again || made.ID != "inst-9" || made.State != api.StateRunning {
		t.Fatalf("%+v, %v", made, err)
	}
	f := s.from
	if s.ref != "then" || !s.wait || f.Handle != "trial" || f.Memory != 512*size.MiB || f.VCPUs != 0 || f.Disk != 0 || len(f.Expose) != 1 ||
		f.PauseAfter == nil || *f.PauseAfter != 0 || f.StopAfter != nil || f.Egress == nil || f.Egress.Mode != "none" || !slices.Equal(f.Secrets, []string{"KEY"}) {
		t.Errorf("asked for %s, %+v", s.ref, f)
	}
	if _, _, err := c.Create(t.Context(), api.CreateRequest{Snapshot: "then"}); err != nil || s.wait || s.from.Egress != nil || s.from.PauseAfter != nil {
		t.Errorf("%v; asked for %+v", err, s.from)
	}
	for what, req := range map[string]api.CreateRequest{
		"command":           {Command: []string{"true"}},
		"image":             {ImageRef: "debian"},
		"environment":       {Env: map[string]string{"A": "b"}},
		"working directory": {Workdir: "/tmp"},
		"user":              {User: "root"},
		"workspace":         {Workspace: "data"},
	} {
		req.Snapshot = "then"
		_, _, err := c.Create(t.Context(), req)
		wantFault(t, err, fault.Invalid, what)
	}
	_, _, err = c.Create(t.Context(), api.CreateRequest{Snapshot: "then", Handle: "web"})
	wantFault(t, err, fault.Conflict, "is taken")
}
