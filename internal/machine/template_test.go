package machine

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/rootfs"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/fake"
)

// cloneOf plans a clone of an instance of that form, and gives it back.
func (s *stage) cloneOf(t *testing.T, g *Ground, want instance.Spec) instance.Plan {
	t.Helper()
	plan, err := g.Prepare(t.Context(), instance.NewID(), want, guestproto.NewMagic(), false)
	if err != nil {
		t.Fatal(err)
	}
	if plan.Kind != instance.Clone || plan.Release == nil {
		t.Fatalf("plan %+v", plan)
	}
	plan.Release()
	return plan
}

// made fails unless so many templates were made so far.
func (s *stage) made(t *testing.T, want int32) {
	t.Helper()
	if n := s.linker.links.Load(); n != want {
		t.Errorf("%d templates were made, not %d", n, want)
	}
}

// folders returns the folders of templates.
func (s *stage) folders(t *testing.T) []string {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(s.home.Templates(), "*"))
	if err != nil {
		t.Fatal(err)
	}
	return dirs
}

// only returns the one folder there is.
func (s *stage) only(t *testing.T) string {
	t.Helper()
	dirs := s.folders(t)
	if len(dirs) != 1 {
		t.Fatalf("the templates are %v", dirs)
	}
	return dirs[0]
}

// reborn closes the daemon and returns the next one.
func (s *stage) reborn(t *testing.T) *Ground {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return s.daemon(t, s.harness)
}

func TestTemplateIsMadeOnce(t *testing.T) {
	s := newStage(t)
	var wg sync.WaitGroup
	plans := make([]instance.Plan, 8)
	for i := range plans {
		wg.Go(func() {
			var err error
			if plans[i], err = s.Prepare(t.Context(), instance.NewID(), spec(), guestproto.NewMagic(), false); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s.made(t, 1)
	if hello := s.linker.hello.Load().(guestproto.Hello); !hello.Prepare {
		t.Errorf("the template was greeted with %+v", hello)
	}
	if n := len(s.host.VMs()); n != 0 {
		t.Errorf("%d machines run", n)
	}
	for _, plan := range plans {
		if plan.Kind != instance.Clone || plan.Magic != plans[0].Magic {
			t.Fatalf("plan %+v", plan)
		}
		s.start(t, plan)
	}
	s.work.Wait()
	dir := s.only(t)
	for _, name := range []string{"vmm", InstanceDisk} {
		if _, err := os.Stat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s stayed: %v", name, err)
		}
	}
}

func TestTemplateKeys(t *testing.T) {
	s := newStage(t)
	base := spec()
	s.cloneOf(t, s.Ground, base)
	same := base
	same.Memory, same.Disk = base.Memory-memoryStep+1, 2*base.Disk
	if plan := s.cloneOf(t, s.Ground, same); plan.Recipe.Memory != base.Memory {
		t.Errorf("the clone has %v", plan.Recipe.Memory)
	}
	s.made(t, 1)
	more, wider := base, base
	more.Memory++
	wider.VCPUs++
	s.cloneOf(t, s.Ground, more)
	s.made(t, 2)
	s.cloneOf(t, s.Ground, wider)
	s.made(t, 3)
	s.host.Upgrade("2")
	s.cloneOf(t, s.Ground, base)
	s.made(t, 4)
	replaceImage(t, s.home)
	s.cloneOf(t, s.Ground, base)
	s.made(t, 5)
}

// TestNextDaemonFindsTemplates: Close waits until they are written.
func TestNextDaemonFindsTemplates(t *testing.T) {
	s := newStage(t)
	first := s.cloneOf(t, s.Ground, spec())
	g := s.reborn(t)
	if err := g.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	plan, err := g.Prepare(t.Context(), instance.NewID(), spec(), guestproto.NewMagic(), false)
	if err != nil {
		t.Fatal(err)
	}
	s.made(t, 1)
	if plan.Magic != first.Magic {
		t.Error("the magic is another")
	}
	s.start(t, plan)
}

func TestDamagedTemplateIsMadeAnew(t *testing.T) {
	write := func(t *testing.T, path string) {
		t.Helper()
		if err := os.WriteFile(path, []byte("#"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, breakIt := range map[string]func(t *testing.T, dir string){
		"memory": func(t *testing.T, dir string) {
			t.Helper()
			write(t, filepath.Join(dir, memoryName))
		},
		"manifest": func(t *testing.T, dir string) {
			t.Helper()
			write(t, filepath.Join(dir, manifestName))
		},
		"no manifest": func(t *testing.T, dir string) {
			t.Helper()
			remove(t, filepath.Join(dir, manifestName))
		},
		"no memory": func(t *testing.T, dir string) {
			t.Helper()
			remove(t, filepath.Join(dir, memoryName))
		},
		"no state": func(t *testing.T, dir string) {
			t.Helper()
			remove(t, filepath.Join(dir, "state"))
		},
		"form": func(t *testing.T, dir string) {
			t.Helper()
			edit(t, filepath.Join(dir, manifestName), "form", templateForm+1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			s.cloneOf(t, s.Ground, spec())
			g := s.reborn(t)
			breakIt(t, s.only(t))
			plan, err := g.Prepare(t.Context(), instance.NewID(), spec(), guestproto.NewMagic(), false)
			if err != nil {
				t.Fatal(err)
			}
			s.made(t, 2)
			s.start(t, plan)
			g.work.Wait()
			if _, err := os.Stat(filepath.Join(s.only(t), manifestName)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestTemplateFails(t *testing.T) {
	for name, c := range map[string]struct {
		faults fake.Faults
		link   error
		want   error
	}{
		"start":   {faults: fake.Faults{Start: errInjected}, want: errInjected},
		"link":    {link: errInjected, want: errInjected},
		"pause":   {faults: fake.Faults{Pause: errInjected}, want: errInjected},
		"save":    {faults: fake.Faults{Save: errInjected}, want: errInjected},
		"it dies": {faults: fake.Faults{SaveDies: true}, want: vmm.ErrEnded},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			s.host.Inject(c.faults)
			if c.link != nil {
				s.linker.fail.Store(&c.link)
			}
			s.fails(t, c.want)
			if dirs := s.folders(t); len(dirs) != 0 || len(s.host.VMs()) != 0 {
				t.Errorf("left: %v and %d machines", dirs, len(s.host.VMs()))
			}
		})
	}
}

// fails expects a clone to fail with want, or with anything if that is nil.
func (s *stage) fails(t *testing.T, want error) {
	t.Helper()
	plan, err := s.Prepare(t.Context(), instance.NewID(), spec(), guestproto.NewMagic(), false)
	if err == nil || plan.Kind != instance.Clone || plan.Release != nil {
		t.Errorf("plan %+v, error %v", plan, err)
	}
	if want != nil && !errors.Is(err, want) {
		t.Errorf("error %v, not %v", err, want)
	}
}

// age makes all that failed long ago.
func (s *stage) age() {
	s.cache.mu.Lock()
	defer s.cache.mu.Unlock()
	for _, e := range s.cache.entries {
		e.since = e.since.Add(-failurePatience)
	}
}

func TestFailedTemplateIsLeftAlone(t *testing.T) {
	s := newStage(t)
	s.linker.fail.Store(&errInjected)
	s.fails(t, errInjected)
	s.fails(t, errInjected)
	s.made(t, 1)
	s.age()
	s.fails(t, errInjected)
	s.made(t, 2)
	s.linker.fail.Store(nil)
	s.age()
	s.cloneOf(t, s.Ground, spec())
	s.made(t, 3)
}

// TestTemplateThatNeverComesUp: those who wait are protected.
func TestTemplateThatNeverComesUp(t *testing.T) {
	s := newStage(t)
	s.timeout = time.Millisecond
	s.linker.block = func(ctx context.Context) { <-ctx.Done() }
	s.fails(t, nil)
	if n := len(s.host.VMs()); n != 0 {
		t.Errorf("%d machines run", n)
	}
}

// TestWaitingEndsAndMakingGoesOn: who asked first leaves; the template is for others.
func TestWaitingEndsAndMakingGoesOn(t *testing.T) {
	s := newStage(t)
	began, goOn := make(chan struct{}), make(chan struct{})
	s.linker.block = func(context.Context) { close(began); <-goOn }
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() { <-began; cancel(errInjected) }()
	_, err := s.Prepare(ctx, instance.NewID(), spec(), guestproto.NewMagic(), false)
	if !errors.Is(err, errInjected) {
		t.Error(err)
	}
	close(goOn)
	s.cloneOf(t, s.Ground, spec())
	s.made(t, 1)
}

// TestTemplateThatCannotBeWritten serves as long as its daemon lives.
func TestTemplateThatCannotBeWritten(t *testing.T) {
	s := newStage(t)
	s.host.Inject(fake.Faults{Store: errInjected})
	s.cloneOf(t, s.Ground, spec())
	s.work.Wait()
	s.host.Inject(fake.Faults{})
	s.start(t, s.plan(t, instance.NewID(), false))
	s.made(t, 1)
	g := s.reborn(t)
	if err := g.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if dirs := s.folders(t); len(dirs) != 0 {
		t.Errorf("left: %v", dirs)
	}
	s.cloneOf(t, g, spec())
	s.made(t, 2)
}

// TestRecover: a daemon was killed while it made a template.
func TestRecover(t *testing.T) {
	s := newStage(t)
	s.cloneOf(t, s.Ground, spec())
	g := s.reborn(t)
	whole := s.only(t)
	dir := filepath.Join(s.home.Templates(), "half")
	machine := filepath.Join(dir, "vmm")
	if err := os.MkdirAll(machine, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := s.driver.Start(t.Context(), vmm.Spec{ID: "half", Dir: machine}, vmm.Boot{}); err != nil {
		t.Fatal(err)
	}
	s.host.Restart()
	s.host.VM("half").Inject(fake.Faults{Kill: errInjected})
	if err := g.Recover(t.Context()); !errors.Is(err, errInjected) {
		t.Errorf("a machine that cannot be killed: %v", err)
	}
	if _, err := os.Stat(machine); err != nil {
		t.Errorf("its folder: %v", err)
	}
	s.host.Restart()
	s.host.VM("half").Inject(fake.Faults{})
	if err := g.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(s.host.VMs()); n != 0 || s.only(t) != whole {
		t.Errorf("left: %d machines", n)
	}
}

// TestTemplateThatCannotBeKilled: its folder stays, for the next daemon to find the
// machine in it.
func TestTemplateThatCannotBeKilled(t *testing.T) {
	s := newStage(t)
	s.host.Inject(fake.Faults{Kill: errInjected})
	s.fails(t, errInjected)
	if _, err := os.Stat(filepath.Join(s.only(t), "vmm")); err != nil {
		t.Error(err)
	}
	g := s.reborn(t)
	s.host.Restart()
	for _, v := range s.host.VMs() {
		v.Inject(fake.Faults{})
	}
	if err := g.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, dirs := len(s.host.VMs()), s.folders(t); n != 0 || len(dirs) != 0 {
		t.Errorf("left: %d machines, %v", n, dirs)
	}
}

func TestRecoverAnEmptyHome(t *testing.T) {
	s := newStage(t)
	remove(t, s.home.Templates())
	if err := s.Recover(t.Context()); err != nil {
		t.Error(err)
	}
}

// sized returns instances' specs that need templates of their own.
func sized(n int) []instance.Spec {
	all := make([]instance.Spec, n)
	for i := range all {
		all[i] = spec()
		all[i].Memory = size.GiB + size.Bytes(i)*memoryStep
	}
	return all
}

// TestForget removes an image's templates, unless they are in use.
func TestForget(t *testing.T) {
	s := newStage(t)
	base := spec()
	s.cloneOf(t, s.Ground, base)
	s.work.Wait()
	img, err := rootfs.LoadImage(s.home, rootfs.BaseImage)
	if err != nil {
		t.Fatal(err)
	}
	s.Forget("sha256:another")
	s.only(t)
	plan, err := s.Prepare(t.Context(), instance.NewID(), base, guestproto.NewMagic(), false)
	if err != nil {
		t.Fatal(err)
	}
	s.Forget(img.Digest)
	s.only(t)
	plan.Release()
	s.Forget(img.Digest)
	if dirs := s.folders(t); len(dirs) != 0 {
		t.Errorf("after all of it is forgotten there is %v", dirs)
	}
	s.cloneOf(t, s.Ground, base) // it can be made again
	s.made(t, 2)
}

// TestRootOfImage starts instances of an image that has a root of its own.
func TestRootOfImage(t *testing.T) {
	s := newStage(t)
	base := spec()
	base.Base.Root = "sha256:" + strings.Repeat("a", 64)
	if _, err := s.Prepare(t.Context(), instance.NewID(), base, guestproto.NewMagic(), false); fault.KindOf(err) != fault.NotFound {
		t.Errorf("a root that is not here: %v", err)
	}
	path, err := rootfs.RootPath(s.home, base.Base.Root)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte("root"), 0o400)); err != nil {
		t.Fatal(err)
	}
	if plan := s.cloneOf(t, s.Ground, base); plan.Recipe.Disks[0].Path != path {
		t.Errorf("its machine stands on %+v", plan.Recipe.Disks[0])
	}
	s.cloneOf(t, s.Ground, spec()) // of another image: another template
	s.made(t, 2)
	base.Base.Root = "../../../etc/passwd"
	if _, err := s.Prepare(t.Context(), instance.NewID(), base, guestproto.NewMagic(), false); err == nil {
		t.Error("a path was taken for a digest")
	}
}

// TestWarm: the first start finds its template made, as does a daemon after this one.
func TestWarm(t *testing.T) {
	s := newStage(t)
	for range 2 {
		if err := s.Warm(t.Context(), spec()); err != nil {
			t.Fatal(err)
		}
		s.made(t, 1)
	}
	if left := s.names(t, s.home.Instances()); len(left) != 0 {
		t.Errorf("instances: %v", left)
	}
	s.cloneOf(t, s.Ground, spec())
	s.made(t, 1)
	s.work.Wait() // what is made is written too
	s.cloneOf(t, s.daemon(t, s.harness), spec())
	s.made(t, 1)
}
