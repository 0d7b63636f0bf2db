package machine

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/kernel/kerneltest"
	"github.com/xfeldman/aegisvm/internal/paths"
	"github.com/xfeldman/aegisvm/internal/rootfs"
	"github.com/xfeldman/aegisvm/internal/rootfs/rootfstest"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm/fake"
)

// ground returns a Ground on a home with everything in it.
func ground(t *testing.T) (*Ground, paths.Home) {
	t.Helper()
	home := paths.Home(filepath.Join(t.TempDir(), "home"))
	kerneltest.Install(t, home)
	rootfstest.Install(t, home)
	harness := filepath.Join(t.TempDir(), "aegis-harness")
	if err := os.WriteFile(harness, []byte("harness"), 0o600); err != nil {
		t.Fatal(err)
	}
	return NewGround(Options{Home: home, Harness: harness, Driver: fake.NewHost(nil).Driver(), Log: slog.New(slog.DiscardHandler)}), home
}

func spec() instance.Spec {
	return instance.Spec{Command: []string{"true"}, Memory: size.GiB, VCPUs: 2, Disk: 20 * size.GiB}
}

func TestPrepareAndClear(t *testing.T) {
	g, home := ground(t)
	id, magic := instance.NewID(), guestproto.NewMagic()
	plan, err := g.Prepare(t.Context(), id, spec(), magic, true)
	if err != nil {
		t.Fatal(err)
	}
	got := plan.Recipe
	if got.ID != string(id) || got.Dir != g.Dir(id) || got.Memory != size.GiB || got.VCPUs != 2 || !got.Network {
		t.Errorf("recipe %+v", got)
	}
	if got.Cmdline != "aegis.magic="+magic.String()+" GODEBUG=asyncpreemptoff=1" {
		t.Errorf("command line %q", got.Cmdline)
	}
	for _, path := range []string{got.Kernel, got.Initrd, got.Disks[0].Path, got.Disks[1].Path, got.Dir} {
		if _, err := os.Stat(path); err != nil || !filepath.IsAbs(path) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if d := got.Disks[0]; d.Name != "base" || !d.ReadOnly {
		t.Errorf("base disk %+v", d)
	}
	d := got.Disks[1]
	if fi, err := os.Stat(d.Path); err != nil || d.Name != "disk" || d.ReadOnly || fi.Size() != int64(20*size.GiB) {
		t.Errorf("instance disk %+v of %d bytes, %v", d, fi.Size(), err)
	}
	if fi, err := os.Stat(home.Instance(string(id))); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("the folder has mode %v, %v", fi.Mode(), err)
	}
	if ids, err := g.Leftovers(); err != nil || !slices.Equal(ids, []instance.ID{id}) {
		t.Errorf("leftovers %v, %v", ids, err)
	}
	for range 2 {
		if err := g.Clear(id); err != nil {
			t.Fatal(err)
		}
	}
	if ids, err := g.Leftovers(); err != nil || len(ids) != 0 {
		t.Errorf("leftovers after Clear: %v, %v", ids, err)
	}
}

func TestPrepareKeepsADiskThatIsThere(t *testing.T) {
	g, _ := ground(t)
	id := instance.NewID()
	first, err := g.Prepare(t.Context(), id, spec(), guestproto.NewMagic(), true)
	if err != nil {
		t.Fatal(err)
	}
	disk := first.Recipe.Disks[1].Path
	if err := os.WriteFile(disk, []byte("the user's data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Prepare(t.Context(), id, spec(), guestproto.NewMagic(), true); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(disk); err != nil || string(data) != "the user's data" {
		t.Errorf("the disk holds %q, %v", data, err)
	}
}

// TestPrepareAfterAKill: a daemon that died in Prepare left half a disk.
func TestPrepareAfterAKill(t *testing.T) {
	g, home := ground(t)
	id := instance.NewID()
	dir := home.Instance(string(id))
	if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "disk.part"), []byte("half"), 0o600)); err != nil {
		t.Fatal(err)
	}
	got, err := g.Prepare(t.Context(), id, spec(), guestproto.NewMagic(), true)
	if err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(got.Recipe.Disks[1].Path); err != nil || fi.Size() != int64(20*size.GiB) {
		t.Errorf("the disk has %d bytes, %v", fi.Size(), err)
	}
}

func TestPrepareFails(t *testing.T) {
	for name, c := range map[string]struct {
		breakIt func(t *testing.T, g *Ground, home paths.Home, s *instance.Spec)
		kind    fault.Kind
		blame   fault.Blame
		hint    string
	}{
		"no kernel": {func(t *testing.T, _ *Ground, home paths.Home, _ *instance.Spec) {
			t.Helper()
			remove(t, home.Kernel())
		}, fault.Unavailable, fault.Host, "aegis setup"},
		"no base image": {func(t *testing.T, _ *Ground, home paths.Home, _ *instance.Spec) {
			t.Helper()
			remove(t, filepath.Join(home.Images(), "base.json"))
		}, fault.NotFound, fault.Host, "aegis setup"},
		"no template": {func(t *testing.T, _ *Ground, home paths.Home, _ *instance.Spec) {
			t.Helper()
			remove(t, rootfs.TemplatePath(home))
		}, fault.Unavailable, fault.Host, "aegis setup"},
		"no harness": {func(t *testing.T, g *Ground, _ paths.Home, _ *instance.Spec) {
			t.Helper()
			remove(t, g.harness)
		}, fault.Unavailable, fault.Host, "AegisVM again"},
		"another image": {func(_ *testing.T, _ *Ground, _ paths.Home, s *instance.Spec) {
			s.Image = "../../etc/passwd"
		}, fault.NotFound, "", ""},
		"disk full": {func(_ *testing.T, g *Ground, _ paths.Home, _ *instance.Spec) {
			g.free = func(string) (size.Bytes, error) { return MinFree - 1, nil }
		}, fault.Exhausted, fault.Host, "free some space"},
	} {
		t.Run(name, func(t *testing.T) {
			g, home := ground(t)
			s := spec()
			c.breakIt(t, g, home, &s)
			id := instance.NewID()
			_, err := g.Prepare(t.Context(), id, s, guestproto.NewMagic(), true)
			if fault.KindOf(errors.Unwrap(err)) != c.kind || fault.BlameOf(err) != c.blame || !strings.Contains(fault.HintOf(err), c.hint) {
				t.Errorf("error %v (%s by %q, hint %q)", err, fault.KindOf(err), fault.BlameOf(err), fault.HintOf(err))
			}
			if _, err := os.Stat(home.Instance(string(id))); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("something stayed behind: %v", err)
			}
		})
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

// TestBadIDsAreNoPaths: Clear removes a whole tree, so what it is given must be an
// instance's id and nothing else.
func TestBadIDsAreNoPaths(t *testing.T) {
	g, home := ground(t)
	for _, id := range []instance.ID{"", ".", "..", "../images", "inst-", "inst-1/..", "/etc"} {
		if err := g.Clear(id); err == nil {
			t.Errorf("Clear(%q) is no error", id)
		}
	}
	if _, err := os.Stat(home.Images()); err != nil {
		t.Error(err)
	}
}

func TestLeftoversOfAnEmptyHome(t *testing.T) {
	g := NewGround(Options{Home: paths.Home(filepath.Join(t.TempDir(), "none"))})
	if ids, err := g.Leftovers(); err != nil || len(ids) != 0 {
		t.Errorf("leftovers %v, %v", ids, err)
	}
}
