package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/xfeldman/aegisvm/internal/atomicfile"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/rootfs"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// snapshotManifest describes a snapshot. It has secrets in it: what opens the link to a
// machine that starts from it.
type snapshotManifest struct {
	Form    int             `json:"form"`
	Made    time.Time       `json:"made"`
	Name    string          `json:"name"`
	Cold    bool            `json:"cold"`
	Saved   vmm.Saved       `json:"saved"`
	Image   string          `json:"image"` // digest of the base image
	Tools   toolSet         `json:"tools,omitempty"`
	Size    size.Bytes      `json:"disk_size"`
	Layers  []layer         `json:"layers"`
	Written size.Bytes      `json:"written"` // what the first of the layers takes
	Origin  instance.Origin `json:"origin"`
}

const snapshotForm = 1

var snapshotIDForm = regexp.MustCompile(`^snap-[0-9a-z]+$`)

// snapshotNameForm is that of handles.
var snapshotNameForm = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]*$`)

const maxSnapshotName = 63

// names are those that snapshots are about to have.
type names struct {
	mu    sync.Mutex
	taken map[string]bool
}

// take reserves a name until it is given back.
func (n *names) take(name string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.taken[name] {
		return false
	}
	if n.taken == nil {
		n.taken = map[string]bool{}
	}
	n.taken[name] = true
	return true
}

func (n *names) giveBack(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.taken, name)
}

func (g *Ground) snapshotDir(id instance.SnapshotID) string {
	return filepath.Join(g.home.Snapshots(), string(id))
}

// Keep implements instance.Capture.
func (c *capture) Keep(ctx context.Context, name string, of instance.Origin) (instance.Snapshot, error) {
	if name == "" {
		name = string(c.id)
	} else if !snapshotNameForm.MatchString(name) || len(name) > maxSnapshotName || snapshotIDForm.MatchString(name) {
		return instance.Snapshot{}, fault.New(fault.Invalid, "bad name of a snapshot %q", name).
			WithHint("a name has letters, digits, '.', '_' and '-', begins with a letter or digit, is at most %d long and no snapshot's id", maxSnapshotName)
	}
	errTaken := fault.New(fault.Conflict, "there is a snapshot %q already", name).
		WithHint("choose another name, or: aegis snapshot delete %s", name)
	if !c.g.names.take(name) {
		return instance.Snapshot{}, errTaken
	}
	defer c.g.names.giveBack(name)
	_, _, err := c.g.findSnapshot(name)
	if err == nil {
		return instance.Snapshot{}, errTaken
	}
	if fault.KindOf(err) != fault.NotFound {
		return instance.Snapshot{}, err
	}
	m := snapshotManifest{
		Form: snapshotForm, Made: time.Now(), Name: name, Cold: c.cold, Image: c.image, Tools: c.tools, Size: c.size, Layers: c.layers, Origin: of,
	}
	if err := c.store(ctx, &m); err != nil {
		return instance.Snapshot{}, rootfs.DiskFull(fmt.Errorf("keep a snapshot: %w", err))
	}
	c.kept = true
	return c.g.snapshot(c.id, &m)
}

// store writes what there is of a snapshot, the manifest last.
func (c *capture) store(ctx context.Context, m *snapshotManifest) error {
	var err error
	if c.memory != nil && c.saved.Memory.Path == "" {
		if c.saved.Memory, err = c.memory.Store(ctx, filepath.Join(c.dir, memoryName)); err != nil {
			return err
		}
	}
	// The shared state was made in a folder beside the first one.
	if from := c.saved.State.Path; from != "" && filepath.Dir(from) != c.dir {
		moved := c.saved.In(c.dir)
		if err := os.Rename(from, moved.State.Path); err != nil {
			return err
		}
		c.saved.State = moved.State
	}
	if err := c.saved.Sync(); err != nil {
		return err
	}
	for _, l := range c.layers {
		if err := syncFile(c.g.layerPath(l.ID)); err != nil {
			return err
		}
	}
	if len(c.layers) > 0 {
		fi, err := os.Stat(c.g.layerPath(c.layers[0].ID))
		if err != nil {
			return err
		}
		m.Written = rootfs.Occupied(fi)
	}
	if err := atomicfile.SyncDir(c.g.home.Layers()); err != nil {
		return err
	}
	m.Saved = c.saved
	return errors.Join(writeManifest(c.dir, m), atomicfile.SyncDir(c.g.home.Snapshots()))
}

func (g *Ground) snapshot(id instance.SnapshotID, m *snapshotManifest) (instance.Snapshot, error) {
	total, err := occupied(g.snapshotDir(id))
	return instance.Snapshot{
		ID: id, Name: m.Name, Created: m.Made, Size: total + m.Written, Cold: m.Cold, Origin: m.Origin,
	}, err
}

// Snapshots implements instance.Archive.
func (g *Ground) Snapshots(context.Context) ([]instance.Snapshot, error) {
	var all []instance.Snapshot
	err := g.eachSnapshot(func(id instance.SnapshotID, m *snapshotManifest) error {
		s, err := g.snapshot(id, m)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // deleted meanwhile
		}
		all = append(all, s)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	return all, nil
}

// eachSnapshot reads all manifests, in the order of their ids.
func (g *Ground) eachSnapshot(do func(instance.SnapshotID, *snapshotManifest) error) error {
	entries, err := os.ReadDir(g.home.Snapshots())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if !snapshotIDForm.MatchString(e.Name()) {
			continue
		}
		id := instance.SnapshotID(e.Name())
		var m snapshotManifest
		err := readManifest(g.snapshotDir(id), &m)
		if errors.Is(err, fs.ErrNotExist) {
			continue // being made, or deleted meanwhile
		}
		if err == nil {
			err = do(id, &m)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", id, err)
		}
	}
	return nil
}

// findSnapshot returns the snapshot with that id or name.
func (g *Ground) findSnapshot(ref string) (id instance.SnapshotID, m *snapshotManifest, err error) {
	err = g.eachSnapshot(func(is instance.SnapshotID, has *snapshotManifest) error {
		if string(is) == ref || has.Name == ref {
			id, m = is, has
		}
		return nil
	})
	if err == nil && m == nil {
		err = fault.New(fault.NotFound, "there is no snapshot %q", ref).WithHint("see: aegis snapshot list")
	}
	return id, m, err
}

// OpenSnapshot implements instance.Archive.
func (g *Ground) OpenSnapshot(ctx context.Context, ref string) (instance.Snapshot, instance.Capture, error) {
	id, m, err := g.findSnapshot(ref)
	if err != nil {
		return instance.Snapshot{}, nil, err
	}
	if m.Form != snapshotForm {
		return instance.Snapshot{}, nil, fault.New(fault.Conflict, "the snapshot %s is of another version of AegisVM", m.Name)
	}
	img, err := g.image(m.Origin.Spec)
	if err != nil {
		return instance.Snapshot{}, nil, err
	}
	c := &capture{
		g: g, id: id, dir: g.snapshotDir(id), source: m.Origin.ID, kept: true, base: img.Path, image: m.Image, tools: m.Tools, recipe: g.savedRecipe(m.Origin.Spec),
		layers: m.Layers, size: m.Size, saved: m.Saved.In(g.snapshotDir(id)), cold: m.Cold,
	}
	g.pins.hold(c.layers)
	s, err := g.snapshot(id, m)
	if err == nil && !m.Cold {
		err = c.borrow(ctx)
	}
	if err != nil {
		c.Release()
		return instance.Snapshot{}, nil, fmt.Errorf("open the snapshot %s: %w", m.Name, err)
	}
	return s, c, nil
}

// borrow loads the memory of a snapshot, once for all who start from it at about the same
// time. Memory that is of no use is found out about by the one who starts.
func (c *capture) borrow(ctx context.Context) error {
	t, err := c.g.cache.use(ctx, string(c.id), func() (*template, error) {
		loader, ok := c.g.driver.(vmm.MemoryLoader)
		if !ok || c.saved.Whole {
			return nil, fmt.Errorf("%w: this driver cannot load it", vmm.ErrStale)
		}
		memory, err := loader.LoadMemory(context.WithoutCancel(ctx), c.saved)
		if err != nil {
			return nil, err
		}
		return &template{saved: c.saved, memory: memory}, nil
	})
	if errors.Is(err, vmm.ErrStale) || errors.Is(err, vmm.ErrDamaged) {
		c.useless = err
		return nil
	}
	if err != nil {
		return err
	}
	c.memory, c.release = t.memory, t.release
	return nil
}

// DeleteSnapshot implements instance.Archive.
func (g *Ground) DeleteSnapshot(_ context.Context, ref string) error {
	id, m, err := g.findSnapshot(ref)
	if err != nil {
		return err
	}
	gone := filepath.Join(g.home.Snapshots(), atomicfile.Prefix+string(id))
	err = rename(g.snapshotDir(id), gone)
	if errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.NotFound, "the snapshot %q was just deleted", m.Name)
	}
	if err == nil {
		err = os.RemoveAll(gone)
	}
	g.cache.forget(string(id))
	g.collectLater()
	if err != nil {
		return fmt.Errorf("delete the snapshot %s: %w", m.Name, err)
	}
	return nil
}

// recoverSnapshots removes what an earlier daemon left of captures that it was making,
// and the layers that nobody names.
func (g *Ground) recoverSnapshots(ctx context.Context) error {
	entries, err := os.ReadDir(g.home.Snapshots())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var errs []error
	for _, e := range entries {
		dir := filepath.Join(g.home.Snapshots(), e.Name())
		_, err := os.Stat(filepath.Join(dir, manifestName))
		if err == nil && !strings.HasPrefix(e.Name(), atomicfile.Prefix) {
			continue
		}
		errs = append(errs, g.sweep(ctx, dir))
	}
	errs = append(errs, g.collectLayers())
	return errors.Join(errs...)
}
