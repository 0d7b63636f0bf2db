package httpapi

import (
	"bytes"
	"context"
	"os"
	"reflect"
	"testing"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/size"
)

// kitted is an Instances with an instance "bot" of a kit, and one of none.
type kitted struct {
	Instances
	made *instance.Spec
}

func (k kitted) Get(ref string) (instance.View, error) {
	v := instance.View{Record: instance.Record{ID: "inst-1", Spec: instance.Spec{Handle: ref}}}
	v.Memory, v.DiskUse = func() (size.Bytes, error) { return 0, nil }, func() (size.Bytes, error) { return 0, nil }
	v.Traffic, v.Denials = func() instance.Traffic { return instance.Traffic{} }, func() []instance.Denial { return nil }
	v.Trouble, v.Busy = func() error { return nil }, func() string { return "" }
	switch ref {
	case "bot":
		v.Spec.Kit = instance.Kit{Name: "agent", Version: "2"}
	case "plain":
	default:
		return v, fault.New(fault.NotFound, "there is no instance %q", ref)
	}
	return v, nil
}

func (k kitted) Create(_ context.Context, spec instance.Spec) (instance.View, error) {
	*k.made = spec
	return k.Get("bot")
}

// stubKits has one kit, and files in memory.
type stubKits struct{ files map[string][]byte }

var oneKit = []api.Kit{{Name: "agent", Status: api.KitOK, Config: []api.KitConfig{}, ReferencedEnv: []string{}}}

func (stubKits) All() []api.Kit         { return oneKit }
func (stubKits) Running(id string) bool { return id == "inst-1" }
func (k stubKits) ReadConfig(handle, file string) ([]byte, error) {
	b, ok := k.files[handle+"/"+file]
	if !ok {
		return nil, fault.New(fault.NotFound, "%s has no file %q", handle, file)
	}
	return b, nil
}

func (k stubKits) WriteConfig(handle, file string, b []byte) error {
	if file == "" {
		return fault.New(fault.Denied, "no name")
	}
	k.files[handle+"/"+file] = b
	return nil
}

func serveKits(t *testing.T) (*client.Client, *instance.Spec) {
	t.Helper()
	made := &instance.Spec{}
	c, _, _ := serveConfig(t, &stubRunner{}, Config{Instances: kitted{made: made}, Kits: stubKits{map[string][]byte{}}}, os.Getuid())
	return c, made
}

func TestKits(t *testing.T) {
	c, made := serveKits(t)
	if all, err := c.Kits(t.Context()); err != nil || !reflect.DeepEqual(all, oneKit) {
		t.Errorf("%+v, %v", all, err)
	}
	i, err := c.Info(t.Context(), "bot")
	if err != nil || i.Kit != "agent" || i.KitVersion != "2" || !i.GatewayRunning {
		t.Errorf("%+v, %v", i, err)
	}
	caps := &api.Capabilities{Spawn: true, MaxChildren: 3}
	created, _, err := c.Create(t.Context(), api.CreateRequest{Kit: "agent", Capabilities: caps})
	if err != nil || created.Kit != "agent" {
		t.Errorf("%+v, %v", created, err)
	}
	if made.Kit.Name != "agent" || !reflect.DeepEqual(made.Capabilities, caps) {
		t.Errorf("it is asked for %+v, %+v", made.Kit, made.Capabilities)
	}
	if _, _, err := c.Create(t.Context(), api.CreateRequest{Kit: "agent", Snapshot: "s"}); fault.KindOf(err) != fault.Invalid {
		t.Errorf("from a snapshot: %v", err)
	}
}

func TestKitConfig(t *testing.T) {
	c, _ := serveKits(t)
	for _, data := range [][]byte{[]byte(`{"a":1}`), {}, bytes.Repeat([]byte{0xff}, api.MaxKitConfig)} {
		w, err := c.SetKitConfig(t.Context(), "bot", "a b&c.json", data)
		if err != nil || w.Path != "a b&c.json" || w.Size != int64(len(data)) {
			t.Errorf("%+v, %v", w, err)
		}
		if b, err := c.KitConfig(t.Context(), "bot", "a b&c.json"); err != nil || !bytes.Equal(b, data) {
			t.Errorf("%d bytes, %v", len(b), err)
		}
	}
	for name, want := range map[string]fault.Kind{"bot": fault.NotFound, "plain": fault.Conflict, "nobody": fault.NotFound} {
		if _, err := c.KitConfig(t.Context(), name, "other"); fault.KindOf(err) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, want := range map[string]fault.Kind{"bot": fault.Denied, "plain": fault.Conflict, "nobody": fault.NotFound} {
		if _, err := c.SetKitConfig(t.Context(), name, "", nil); fault.KindOf(err) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, n := range []int{api.MaxKitConfig + 1, api.MaxKitConfig + 5000} {
		if _, err := c.SetKitConfig(t.Context(), "bot", "x", make([]byte, n)); fault.KindOf(err) != fault.TooLarge {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}
