package image

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/rootfs"
	"github.com/xfeldman/aegisvm/internal/size"
)

// users is who stands on which image.
type users struct {
	mu sync.Mutex
	m  map[string][]string
}

func (u *users) set(id string, handles ...string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.m = map[string][]string{}
	if len(handles) > 0 {
		u.m[id] = handles
	}
}

func (u *users) get() (map[string][]string, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.m, nil
}

// take imports a root file system with one file.
func take(tb testing.TB, s *Store, ref, data string) string {
	tb.Helper()
	images, err := s.ImportStream(tb.Context(), bytes.NewReader(archiveOf(tb, reg("f", data))), ref, quiet)
	if err != nil {
		tb.Fatal(err)
	}
	return images[0].ID
}

func TestRemove(t *testing.T) {
	u := &users{}
	var forgotten []string
	s := newStore(t, func(o *Options) {
		o.Users = u.get
		o.Forget = func(root string) { forgotten = append(forgotten, root) }
	})
	id := take(t, s, "app:1", "1")
	r, err := s.loadRecord(id)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.saveTag(tag{Name: "index.docker.io/library/app:2", ID: id}); err != nil {
		t.Fatal(err)
	}
	// One of two names.
	out, err := s.Remove(t.Context(), "app:2", false)
	if err != nil || !slices.Equal(out.Untagged, []string{"app:2"}) || len(out.Deleted) != 0 {
		t.Errorf("the first name: %+v, %v", out, err)
	}
	// The last, of an image that is in use.
	u.set(id, "web", "db")
	if _, err := s.Remove(t.Context(), "app:1", false); fault.KindOf(err) != fault.Conflict || !strings.Contains(err.Error(), "web, db") {
		t.Errorf("in use: %v", err)
	}
	if out, err = s.Remove(t.Context(), "app:1", true); err != nil || len(out.Deleted) != 0 {
		t.Errorf("by force: %+v, %v", out, err)
	}
	same(t, contents(t, s, id), map[string]string{"f": "1"})
	// The last instance goes.
	u.set("")
	s.Collect(t.Context())
	if got := ids(t, s); len(got) != 0 || !slices.Equal(forgotten, []string{r.Root}) {
		t.Errorf("left: %v; forgotten: %v, want %s", got, forgotten, r.Root)
	}
	for _, ref := range []string{"app:1", id, hexOf(id)[:12], "no/such:1"} {
		if _, err := s.Remove(t.Context(), ref, false); fault.KindOf(err) != fault.NotFound {
			t.Errorf("remove %s: %v, want not found", ref, err)
		}
	}
	// By id: all names.
	id = take(t, s, "app:1", "1")
	if err := s.saveTag(tag{Name: "index.docker.io/library/app:2", ID: id}); err != nil {
		t.Fatal(err)
	}
	if out, err = s.Remove(t.Context(), hexOf(id)[:12], false); err != nil || len(out.Untagged) != 2 || !slices.Equal(out.Deleted, []string{id}) || out.Freed == 0 {
		t.Errorf("by id: %+v, %v", out, err)
	}
}

func TestPrune(t *testing.T) {
	u, r := &users{}, newServer(t)
	s := newStore(t, func(o *Options) { o.Users = u.get })
	used := take(t, s, "used:1", "used")
	take(t, s, "idle:1", "idle")
	u.set(used, "web")
	if _, err := s.Pull(t.Context(), r.push(t, "pulled:1", imageOf(t, []v1.Layer{layerOf(t, reg("f", "pulled"))})), "", quiet); err != nil {
		t.Fatal(err)
	}
	writeFile(t, s.path("layers", strings.Repeat("0", 64)+".part"), "cut off")
	if got := len(layersLeft(t, s)); got != 2 {
		t.Fatalf("%d layers", got)
	}
	out, err := s.Prune(t.Context(), false)
	if err != nil || len(out.Untagged)+len(out.Deleted) != 0 || len(layersLeft(t, s)) != 0 || len(ids(t, s)) != 3 {
		t.Errorf("prune: %+v, %v; left %v", out, err, layersLeft(t, s))
	}
	out, err = s.Prune(t.Context(), true)
	if err != nil || len(out.Untagged) != 2 || len(out.Deleted) != 2 || out.Freed == 0 {
		t.Errorf("prune --all: %+v, %v", out, err)
	}
	if got := ids(t, s); !slices.Equal(got, []string{used}) {
		t.Errorf("left: %v, want %s", got, used)
	}
}

// TestQuota lets layers go before it says no.
func TestQuota(t *testing.T) {
	r := newServer(t)
	s := newStore(t, func(o *Options) { o.Quota = size.MiB })
	pull := func(i int, n int) error {
		_, err := s.Pull(t.Context(), r.push(t, fmt.Sprint("app", i, ":1"), imageOf(t, []v1.Layer{layerOf(t, reg("f", noise(byte(i), n)))})), "", quiet)
		return err
	}
	for i := range 2 {
		if err := pull(i, 300<<10); err != nil {
			t.Fatal(err)
		}
	}
	use, err := s.use()
	if err != nil || use > size.MiB || len(layersLeft(t, s)) > 1 {
		t.Errorf("two images take %v, %v, with layers %v", use, err, layersLeft(t, s))
	}
	if err := pull(2, 900<<10); fault.KindOf(err) != fault.Exhausted || !strings.Contains(fault.HintOf(err), "prune") {
		t.Errorf("over the quota: %v, hint %q", err, fault.HintOf(err))
	}
	unfinished(t, s)
	if got := ids(t, s); len(got) != 2 {
		t.Errorf("there is %v", got)
	}
}

// TestCollectionRacesStarts removes and collects while instances are made of the same
// images: what was resolved is there until it is let go.
func TestCollectionRacesStarts(t *testing.T) {
	s := newStore(t)
	archive := archiveOf(t, reg("f", "data"))
	var makers, removers sync.WaitGroup
	stop := make(chan struct{})
	for range 3 {
		removers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := s.Remove(context.Background(), "app:1", true); err != nil && fault.KindOf(err) != fault.NotFound {
					t.Errorf("remove: %v", err)
				}
				s.Collect(context.Background())
			}
		})
	}
	for range 4 {
		makers.Go(func() {
			for range 10 {
				if _, err := s.ImportStream(context.Background(), bytes.NewReader(archive), "app:1", quiet); err != nil && fault.KindOf(err) != fault.NotFound {
					t.Errorf("import: %v", err)
				}
				base, release, err := s.Resolve(context.Background(), "app:1", instance.PullNever)
				if fault.KindOf(err) == fault.NotFound {
					continue
				}
				if err != nil {
					t.Errorf("resolve: %v", err)
					continue
				}
				if _, err := rootfs.LoadRoot(s.home, base.Root); err != nil {
					t.Errorf("what is held has gone: %v", err)
				}
				release()
			}
		})
	}
	makers.Wait()
	close(stop)
	removers.Wait()
	unfinished(t, s)
}
