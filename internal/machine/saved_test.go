package machine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/xfeldman/aegisvm/internal/atomicfile"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/paths"
	"github.com/xfeldman/aegisvm/internal/rootfs"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/fake"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errInjected = errors.New("injected")

// link is the link to a template.
type link struct {
	instance.Guest
	house *house
}

func (link) Close() error { return nil }

func (l link) Mount(_ context.Context, m guestproto.Mount) error {
	if len(m.Mounts) != 1 || m.Mounts[0].Target != "/workspace" {
		return errors.New("another mount")
	}
	return l.house.note("mount")
}

// linker counts the templates that are made.
type linker struct {
	links atomic.Int32
	hello atomic.Value          // the last guestproto.Hello
	block func(context.Context) // called within Link, if not nil
	fail  atomic.Pointer[error] // what Link fails with
	house *house                // of the daemon
}

func (l *linker) Link(ctx context.Context, _ vmm.Machine, _ guestproto.Magic, hello guestproto.Hello) (instance.Guest, error) {
	l.links.Add(1)
	l.hello.Store(hello)
	if l.block != nil {
		l.block(ctx)
	}
	if err := l.fail.Load(); err != nil {
		return nil, *err
	}
	return link{house: l.house}, context.Cause(ctx)
}

// stage is a home, a host for its machines, and the Ground of a daemon.
type stage struct {
	*Ground
	home   paths.Home
	host   *fake.Host
	linker *linker
	begun  chan []byte // what each guest found in its memory when it began
}

func newStage(t *testing.T) *stage {
	t.Helper()
	g, home := ground(t)
	s := &stage{home: home, linker: &linker{}, begun: make(chan []byte, 100)}
	s.host = fake.NewHost(func(ctx context.Context, b fake.Boot) vmm.Exit {
		if b.Saved == nil {
			b.OnSave(func() []byte { return []byte("word") })
		}
		s.begun <- b.Memory
		return fake.Idle(ctx, b)
	})
	s.Ground = s.daemon(t, g.harness)
	t.Cleanup(func() {
		for _, v := range s.host.VMs() {
			if m, err := s.host.Driver().Adopt(context.Background(), v.Spec().Dir); err == nil {
				_ = m.Kill(context.Background())
			}
			v.Inject(fake.Faults{})
			v.Die("the test is over")
		}
	})
	return s
}

// daemon returns the Ground of the next daemon.
func (s *stage) daemon(t *testing.T, harness string) *Ground {
	t.Helper()
	g := NewGround(Options{
		Home: s.home, Harness: harness, Driver: s.host.Driver(), Linker: s.linker, Log: slog.New(slog.DiscardHandler),
		Templates: true, Timeout: time.Minute,
	})
	g.settle = 0
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return g
}

func (s *stage) plan(t *testing.T, id instance.ID, cold bool) instance.Plan {
	t.Helper()
	plan, err := s.Prepare(t.Context(), id, spec(), guestproto.NewMagic(), cold)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

// start starts a plan, and kills the machine when the test ends.
func (s *stage) start(t *testing.T, plan instance.Plan) vmm.Machine {
	t.Helper()
	m, err := s.driver.Start(t.Context(), plan.Recipe, plan.Source)
	if err != nil {
		t.Fatal(err)
	}
	if plan.Release != nil {
		plan.Release()
	}
	t.Cleanup(func() { kill(t, m) })
	return m
}

func kill(t *testing.T, m vmm.Machine) {
	t.Helper()
	if err := m.Kill(context.Background()); err != nil {
		t.Error(err)
	}
}

// asleep returns an instance whose memory is saved and whose machine has ended.
func (s *stage) asleep(t *testing.T) instance.ID {
	t.Helper()
	id := instance.NewID()
	m := s.paused(t, id)
	if err := s.Save(t.Context(), id, m); err != nil {
		t.Fatal(err)
	}
	kill(t, m)
	return id
}

// paused boots an instance and pauses it.
func (s *stage) paused(t *testing.T, id instance.ID) vmm.Machine {
	t.Helper()
	m := s.start(t, s.plan(t, id, true))
	<-s.begun
	if err := m.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	return m
}

func (s *stage) savedFile(id instance.ID, name string) string {
	return filepath.Join(s.home.Instance(string(id)), savedDir, name)
}

// wakes starts the instance from its memory and looks at that.
func (s *stage) wakes(t *testing.T, id instance.ID) vmm.Machine {
	t.Helper()
	plan := s.plan(t, id, false)
	if plan.Kind != instance.Wake {
		t.Fatalf("the plan is of kind %v", plan.Kind)
	}
	m := s.start(t, plan)
	if err := m.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := <-s.begun; string(got) != "word" {
		t.Errorf("the guest remembers %q", got)
	}
	return m
}

func TestSaveAndWake(t *testing.T) {
	s := newStage(t)
	id := s.asleep(t)
	if !s.Saved(id) {
		t.Fatal("nothing is saved")
	}
	m := s.wakes(t, id)
	for range 2 {
		if err := s.Spend(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if s.Saved(id) {
		t.Error("it is saved after Spend")
	}
	// And again, from the machine that woke.
	if err := m.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(t.Context(), id, m); err != nil {
		t.Fatal(err)
	}
	kill(t, m)
	kill(t, s.wakes(t, id))
}

func TestSpendMakesTheNextStartAnother(t *testing.T) {
	s := newStage(t)
	id := s.asleep(t)
	if plan := s.plan(t, id, true); plan.Kind != instance.Cold {
		t.Errorf("a cold start is of kind %v", plan.Kind)
	}
	if err := s.Spend(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	plan := s.plan(t, id, false)
	defer plan.Release()
	if plan.Kind != instance.Clone {
		t.Errorf("after Spend the plan is of kind %v", plan.Kind)
	}
	s.clones = false
	if plan := s.plan(t, id, false); plan.Kind != instance.Cold {
		t.Errorf("without templates the plan is of kind %v", plan.Kind)
	}
}

// TestSaveAClone: a clone does not own its memory, which goes into its state.
func TestSaveAClone(t *testing.T) {
	s := newStage(t)
	id := instance.NewID()
	m := s.start(t, s.plan(t, id, false))
	if err := s.Save(t.Context(), id, m); err != nil {
		t.Fatal(err)
	}
	kill(t, m)
	plan := s.plan(t, id, false)
	if r, ok := plan.Source.(vmm.Restore); plan.Kind != instance.Wake || !ok || !r.Saved.Whole || r.Memory != nil {
		t.Errorf("plan %+v", plan)
	}
	s.start(t, plan)
}

func TestSaveFails(t *testing.T) {
	for name, breakIt := range map[string]func(t *testing.T, s *stage, id instance.ID) context.Context{
		"driver": func(t *testing.T, s *stage, id instance.ID) context.Context {
			t.Helper()
			s.host.VM(string(id)).Inject(fake.Faults{Save: errInjected})
			return t.Context()
		},
		"memory": func(t *testing.T, s *stage, _ instance.ID) context.Context {
			t.Helper()
			s.host.Inject(fake.Faults{Store: errInjected})
			return t.Context()
		},
		"machine dies": func(t *testing.T, s *stage, id instance.ID) context.Context {
			t.Helper()
			s.host.VM(string(id)).Inject(fake.Faults{SaveDies: true})
			return t.Context()
		},
		"cancelled": func(t *testing.T, _ *stage, _ instance.ID) context.Context {
			t.Helper()
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			return ctx
		},
		"no disk": func(t *testing.T, s *stage, id instance.ID) context.Context {
			t.Helper()
			remove(t, filepath.Join(s.home.Instance(string(id)), InstanceDisk))
			return t.Context()
		},
	} {
		for _, before := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				s := newStage(t)
				id := instance.NewID()
				m := s.paused(t, id)
				if before { // something is saved already
					if err := s.Save(t.Context(), id, m); err != nil {
						t.Fatal(err)
					}
					if err := errors.Join(m.Resume(t.Context()), m.Pause(t.Context())); err != nil {
						t.Fatal(err)
					}
				}
				if err := s.Save(breakIt(t, s, id), id, m); err == nil {
					t.Error("the save succeeds")
				}
				if s.Saved(id) {
					t.Error("something is saved")
				}
				part := filepath.Join(s.home.Instance(string(id)), atomicfile.Prefix+savedDir)
				for _, path := range []string{part, s.savedFile(id, "")} {
					if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
						t.Errorf("%s: %v", path, err)
					}
				}
			})
		}
	}
}

func TestWakeFails(t *testing.T) {
	for name, c := range map[string]struct {
		breakIt func(t *testing.T, s *stage, id instance.ID)
		want    error
	}{
		"disk written": {func(t *testing.T, s *stage, id instance.ID) {
			t.Helper()
			now := time.Now().Add(time.Second)
			if err := os.Chtimes(filepath.Join(s.home.Instance(string(id)), InstanceDisk), now, now); err != nil {
				t.Fatal(err)
			}
		}, vmm.ErrDamaged},
		"no manifest's sense": {func(t *testing.T, s *stage, id instance.ID) {
			t.Helper()
			if err := os.WriteFile(s.savedFile(id, manifestName), []byte("{"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, vmm.ErrDamaged},
		"another image": {func(t *testing.T, s *stage, _ instance.ID) {
			t.Helper()
			replaceImage(t, s.home)
		}, vmm.ErrStale},
		"another form": {func(t *testing.T, s *stage, id instance.ID) {
			t.Helper()
			edit(t, s.savedFile(id, manifestName), "form", manifestForm+1)
		}, vmm.ErrStale},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			id := s.asleep(t)
			c.breakIt(t, s, id)
			plan, err := s.Prepare(t.Context(), id, spec(), guestproto.NewMagic(), false)
			if !errors.Is(err, c.want) || plan.Kind != instance.Wake {
				t.Errorf("kind %v, error %v", plan.Kind, err)
			}
			// The way on.
			if err := s.Spend(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			if plan := s.plan(t, id, true); plan.Kind != instance.Cold {
				t.Errorf("the plan is of kind %v", plan.Kind)
			}
		})
	}
}

// TestWakeWithoutManifest: it is written last, so without it nothing was saved.
func TestWakeWithoutManifest(t *testing.T) {
	s := newStage(t)
	id := s.asleep(t)
	remove(t, s.savedFile(id, manifestName))
	if _, err := s.wake(id, vmm.Spec{}, rootfs.Image{}, vmm.Disk{}); s.Saved(id) || !errors.Is(err, vmm.ErrDamaged) {
		t.Errorf("saved %v, error %v", s.Saved(id), err)
	}
}

func TestWakeFromDamagedFiles(t *testing.T) {
	for _, name := range []string{memoryName, "state"} {
		s := newStage(t)
		id := s.asleep(t)
		remove(t, s.savedFile(id, name))
		plan := s.plan(t, id, false)
		if _, err := s.driver.Start(t.Context(), plan.Recipe, plan.Source); !errors.Is(err, vmm.ErrDamaged) {
			t.Errorf("without %s: %v", name, err)
		}
	}
}

// TestSaveAfterTheImageWasReplaced: the memory has the image mounted with which the
// machine began, whatever set-up did since.
func TestSaveAfterTheImageWasReplaced(t *testing.T) {
	s := newStage(t)
	id := instance.NewID()
	m := s.paused(t, id)
	replaceImage(t, s.home)
	if err := s.Save(t.Context(), id, m); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Prepare(t.Context(), id, spec(), guestproto.NewMagic(), false); !errors.Is(err, vmm.ErrStale) {
		t.Errorf("error %v", err)
	}
}

// TestLeftoversOfKilledSaves: half a save, and half a removal.
func TestLeftoversOfKilledSaves(t *testing.T) {
	s := newStage(t)
	id := instance.NewID()
	m := s.paused(t, id)
	for _, name := range []string{savedDir, "spent"} {
		dir := filepath.Join(s.home.Instance(string(id)), atomicfile.Prefix+name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{"state", memoryName, manifestName} {
			if err := os.WriteFile(filepath.Join(dir, file), []byte("half"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if s.Saved(id) {
		t.Error("a half counts as saved")
	}
	if err := s.Save(t.Context(), id, m); err != nil {
		t.Fatal(err)
	}
	kill(t, m)
	s.wakes(t, id)
	if err := s.Spend(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	s.work.Wait()
	left, err := filepath.Glob(filepath.Join(s.home.Instance(string(id)), atomicfile.Prefix+"*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestStartedAndCutOff(t *testing.T) {
	s := newStage(t)
	id := instance.NewID()
	if s.CutOff(id) {
		t.Error("one that never started is cut off")
	}
	s.plan(t, id, true)
	if !s.CutOff(id) {
		t.Error("a start that has begun is not cut off")
	}
	for range 2 {
		if err := s.Started(id); err != nil {
			t.Fatal(err)
		}
	}
	if s.CutOff(id) {
		t.Error("one that has started is cut off")
	}
	if woken := s.asleep(t); s.Started(woken) == nil {
		s.plan(t, woken, false)
		if s.CutOff(woken) {
			t.Error("one that wakes has its program, and is cut off")
		}
	}
}

// replaceImage makes the base image another, as set-up does.
func replaceImage(t *testing.T, home paths.Home) {
	t.Helper()
	edit(t, filepath.Join(home.Images(), "base.json"), "digest", "sha256:another")
}

// edit replaces a field of a JSON file.
func edit(t *testing.T, path, field string, value any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	m := map[string]any{}
	if err := d.Decode(&m); err != nil {
		t.Fatal(err)
	}
	m[field] = value
	if data, err = json.Marshal(m); err == nil {
		err = os.WriteFile(path, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
