package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/atomicfile"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/paths"
	"github.com/xfeldman/aegisvm/internal/rootfs"
	"github.com/xfeldman/aegisvm/internal/size"
)

// Options is what a Store is made of.
type Options struct {
	Home paths.Home
	Log  *slog.Logger
	// Default is the image of instances that ask for none; "" is the one of set-up.
	Default string
	// Quota bounds what images take on the disk; 0 is DefaultQuota.
	Quota size.Bytes
	// Users tells who stands on which image, instances and snapshots: ids of images, what
	// people call those. Nil is nobody.
	Users func() (map[string][]string, error)
	// Forget is told of roots that are removed; nil is nobody.
	Forget func(root string)

	// What tests replace. Nil is the real thing.
	Transport http.RoundTripper
	Keychain  authn.Keychain
	Stall     time.Duration // how long a download may bring nothing; 0 is DefaultStall
}

// DefaultQuota is what images may take on the disk.
const DefaultQuota = 64 * size.GiB

// DefaultStall is how long a download may bring nothing until it is begun anew, where it
// stopped.
const DefaultStall = 30 * time.Second

// Store holds the images of one home. Its methods may be called together.
type Store struct {
	home     paths.Home
	dir      string
	log      *slog.Logger
	standard string // what "" names
	quota    size.Bytes
	users    func() (map[string][]string, error)
	forget   func(string)

	transport http.RoundTripper
	keychain  authn.Keychain
	stall     time.Duration

	pins     *pins
	flights  *flights
	counters counters
	turns    chan struct{} // one for each download in progress
	removing chan struct{} // held by the one who takes names away, or collects
}

var _ instance.Images = (*Store)(nil)

// maxDownloads is how many layers are on their way at a time.
const maxDownloads = 4

// Open makes the folders of a home's images, and clears away what an earlier daemon
// left unfinished. There is one Store of a home.
func Open(o Options) (*Store, error) {
	s := &Store{
		home: o.Home, dir: o.Home.Images(), log: o.Log, standard: o.Default, quota: cmp.Or(o.Quota, DefaultQuota),
		users: o.Users, forget: o.Forget, transport: o.Transport, keychain: o.Keychain, stall: cmp.Or(o.Stall, DefaultStall),
		pins: newPins(), flights: newFlights(), turns: make(chan struct{}, maxDownloads),
		removing: make(chan struct{}, 1),
	}
	if s.transport == nil {
		s.transport = remote.DefaultTransport
	}
	if s.keychain == nil {
		s.keychain = authn.DefaultKeychain
	}
	if s.users == nil {
		s.users = func() (map[string][]string, error) { return nil, nil } //nolint:nilnil // nobody
	}
	if s.forget == nil {
		s.forget = func(string) {}
	}
	for _, dir := range []string{rootfs.Roots(s.home), s.path("records"), s.path("tags"), s.path("layers"), s.path("spool")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, rootfs.DiskFull(err)
		}
		if err := atomicfile.Sweep(dir); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// Close waits until nothing is fetched or built any more. Those who asked for it have
// left before.
func (s *Store) Close() { s.flights.wg.Wait() }

// alone waits until nobody else removes anything, which is short: a collection that had
// looked at the names before one was taken away would leave its image. What it returns
// ends that.
func (s *Store) alone() (done func()) {
	s.removing <- struct{}{}
	return func() { <-s.removing }
}

// find returns the image that a name or the beginning of an id means here, and the name
// if it is one.
func (s *Store) find(ref string) (record, string, error) {
	if ref == "" {
		ref = cmp.Or(s.standard, DefaultName)
	}
	if ref == DefaultName {
		r, err := s.adoptBase()
		return r, DefaultName, err
	}
	parsed, err := parseRef(ref)
	if err == nil {
		if t, err := s.loadTag(parsed.Name()); err == nil {
			r, err := s.loadRecord(t.ID)
			if errors.Is(err, fs.ErrNotExist) { // it has just been removed
				err = errNotHere(ref)
			}
			return r, t.Name, err
		} else if !errors.Is(err, fs.ErrNotExist) {
			return record{}, "", err
		}
	}
	prefix := idPrefix(ref)
	if prefix == "" {
		if err != nil {
			return record{}, "", err
		}
		return record{}, "", errNotHere(ref)
	}
	return s.findID(ref, prefix)
}

func (s *Store) findID(ref, prefix string) (record, string, error) {
	all, err := s.records()
	if err != nil {
		return record{}, "", err
	}
	all = slices.DeleteFunc(all, func(r record) bool { return !strings.HasPrefix(hexOf(r.ID), prefix) })
	switch len(all) {
	case 0:
		return record{}, "", errNotHere(ref)
	case 1:
		return all[0], "", nil
	}
	return record{}, "", fault.New(fault.Invalid, "%d images have an id that begins with %s", len(all), prefix).
		WithHint("write more of it; see: aegis image list")
}

func errNotHere(ref string) error {
	return fault.Wrap(fault.NotFound, fs.ErrNotExist, "the image %s is not here", ref).
		WithHint("see: aegis image list; or get it: aegis image pull %s", ref)
}

// Resolve implements instance.Images.
func (s *Store) Resolve(ctx context.Context, ref string, pull instance.Pull) (instance.Base, func(), error) {
	r, release, err := s.resolve(ctx, ref, pull, func(api.ImageProgress) {})
	if err != nil {
		return instance.Base{}, nil, err
	}
	return baseOf(r), release, nil
}

func baseOf(r record) instance.Base {
	c := r.config().Config
	return instance.Base{ID: r.ID, Root: r.Root, Env: c.Env, Workdir: c.WorkingDir, User: c.User}
}

// resolve returns a pinned image.
func (s *Store) resolve(ctx context.Context, ref string, pull instance.Pull, tell func(api.ImageProgress)) (record, func(), error) {
	ref = cmp.Or(ref, s.standard, DefaultName)
	if ref == DefaultName {
		return s.hold(ref) // it comes of set-up, and of no registry
	}
	if pull != instance.PullAlways {
		r, release, err := s.hold(ref)
		if err == nil || pull == instance.PullNever || !errors.Is(err, fs.ErrNotExist) || idPrefix(ref) != "" && strings.HasPrefix(ref, "sha256:") {
			return r, release, err
		}
	}
	return s.pull(ctx, ref, tell)
}

// hold finds an image and pins it.
func (s *Store) hold(ref string) (record, func(), error) {
	for {
		r, _, err := s.find(ref)
		if err != nil {
			return record{}, nil, err
		}
		release := s.pins.pin(r.ID)
		// It may have been removed before it was pinned; then the name means another, or
		// none.
		if again, err := s.loadRecord(r.ID); err == nil {
			if _, err := rootfs.LoadRoot(s.home, again.Root); err != nil {
				release()
				return record{}, nil, errNotHere(cmp.Or(ref, r.ID))
			}
			return again, release, nil
		}
		release()
	}
}

// List returns all images, by their first names.
func (s *Store) List(context.Context) ([]api.Image, error) {
	if _, err := s.adoptBase(); err != nil && fault.KindOf(err) != fault.NotFound {
		return nil, err
	}
	records, err := s.records()
	if err != nil {
		return nil, err
	}
	tags, err := s.tags()
	if err != nil {
		return nil, err
	}
	users, err := s.users()
	if err != nil {
		return nil, err
	}
	out := []api.Image{}
	for _, r := range records {
		out = append(out, s.describe(r, tags, users))
	}
	slices.SortFunc(out, func(a, b api.Image) int {
		return cmp.Or(cmp.Compare(first(a.Names), first(b.Names)), cmp.Compare(a.ID, b.ID))
	})
	return out, nil
}

// first returns what an image is listed by; those without a name come last.
func first(names []string) string {
	if len(names) == 0 {
		return "~"
	}
	return names[0]
}

// Inspect returns all about one image.
func (s *Store) Inspect(_ context.Context, ref string) (api.Image, error) {
	r, _, err := s.find(ref)
	if err != nil {
		return api.Image{}, err
	}
	tags, err := s.tags()
	if err != nil {
		return api.Image{}, err
	}
	users, err := s.users()
	if err != nil {
		return api.Image{}, err
	}
	return s.describe(r, tags, users), nil
}

func (s *Store) describe(r record, tags []tag, users map[string][]string) api.Image {
	c := r.config()
	i := api.Image{
		ID: r.ID, Names: []string{}, Root: r.Root, From: r.From, StoredAt: r.Stored, Architecture: c.Architecture, OS: c.OS,
		Env: append([]string{}, c.Config.Env...), Workdir: c.Config.WorkingDir, User: c.Config.User, Labels: c.Config.Labels,
		UsedBy: append([]string{}, users[r.ID]...),
	}
	if !c.Created.IsZero() {
		i.CreatedAt = &c.Created.Time
	}
	if base, err := rootfs.LoadImage(s.home, rootfs.BaseImage); err == nil && base.Digest == r.Root && r.From == fromSetUp {
		i.Names = append(i.Names, DefaultName)
	}
	for _, t := range tags {
		if t.ID == r.ID {
			i.Names = append(i.Names, familiar(t.Name))
			i.Digest = cmp.Or(i.Digest, t.Manifest)
		}
	}
	slices.Sort(i.Names)
	i.Default = s.isDefault(i.Names)
	if path, err := rootfs.RootPath(s.home, r.Root); err == nil {
		if fi, err := os.Stat(path); err == nil {
			i.Size = int64(rootfs.Occupied(fi))
		}
	}
	return i
}

func (s *Store) isDefault(names []string) bool {
	want := cmp.Or(s.standard, DefaultName)
	if ref, err := parseRef(want); err == nil && want != DefaultName {
		want = familiar(ref.Name())
	}
	return slices.Contains(names, want)
}

// add makes an image known, and gives it a name unless that is empty. The caller has
// pinned the image and its root, which is there.
func (s *Store) add(r record, name, manifest string) error {
	if old, err := s.loadRecord(r.ID); err == nil && old.Root == r.Root {
		r.Stored = old.Stored
	}
	if err := s.saveRecord(r); err != nil {
		return fmt.Errorf("store image %s: %w", short(r.ID), err)
	}
	if name == "" {
		return nil
	}
	if err := s.saveTag(tag{Name: name, ID: r.ID, Manifest: manifest, Updated: time.Now().UTC()}); err != nil {
		return fmt.Errorf("name image %s: %w", name, err)
	}
	return nil
}
