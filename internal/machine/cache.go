package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/rootfs"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// maxLoaded is how many templates this process keeps in memory. Each takes about what
// a guest uses that has just booted.
const maxLoaded = 4

// maxTemplates bounds what templates take on the disk; those not used for longest go.
const maxTemplates = 4 * size.GiB

// failurePatience is how long a template that could not be made is not tried again.
const failurePatience = time.Minute

// cache holds the templates in memory, each loaded or made once however many want it.
type cache struct {
	mu      sync.Mutex
	entries map[string]*entry
}

// entry is a template, or one that is being made.
type entry struct {
	ready    chan struct{} // closed when the fields below are set
	template *template
	err      error
	since    time.Time

	users int // starts in progress; guarded by cache.mu
	used  time.Time
}

func (e *entry) isReady() bool {
	select {
	case <-e.ready:
		return true
	default:
		return false
	}
}

// use returns the template of that name, which get provides if it is not here yet.
// The caller gives it back with release. get goes on when the one who asked first
// leaves: others may wait for it.
func (c *cache) use(ctx context.Context, name string, get func() (*template, error)) (*template, func(), error) {
	c.mu.Lock()
	e := c.entries[name]
	if e == nil || e.isReady() && e.err != nil && time.Since(e.since) > failurePatience {
		e = &entry{ready: make(chan struct{})}
		c.entries[name] = e
		go func() { // ends when get does; Ground.Close waits for it
			defer close(e.ready)
			e.template, e.err = get()
			e.since = time.Now()
		}()
	}
	e.users++
	e.used = time.Now()
	c.mu.Unlock()
	release := sync.OnceFunc(func() { c.release(e) })
	select {
	case <-e.ready:
	case <-ctx.Done():
		release()
		return nil, nil, context.Cause(ctx)
	}
	if e.err != nil {
		release()
		return nil, nil, e.err
	}
	return e.template, release, nil
}

// release gives a template back, and lets those go that were not used for longest.
func (c *cache) release(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.users--
	var idle []string
	for name, x := range c.entries {
		if x.users == 0 && x.isReady() && (x.template == nil || x.template.isKept()) {
			idle = append(idle, name)
		}
	}
	slices.SortFunc(idle, func(a, b string) int { return c.entries[a].used.Compare(c.entries[b].used) })
	for len(c.entries) > maxLoaded && len(idle) > 0 {
		c.drop(idle[0])
		idle = idle[1:]
	}
}

// drop forgets an entry that nobody uses. The caller holds mu.
func (c *cache) drop(name string) {
	if t := c.entries[name].template; t != nil {
		_ = t.memory.Close() // memory without a name: nothing is lost
	}
	delete(c.entries, name)
}

// forget lets one go that will not be asked for again, if nobody uses it now.
func (c *cache) forget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[name]; e != nil && e.users == 0 && e.isReady() {
		c.drop(name)
	}
}

// has reports whether a template is in memory, or about to be.
func (c *cache) has(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.entries[name] != nil
}

// settle waits until nothing is being made.
func (c *cache) settle() {
	c.mu.Lock()
	entries := make([]*entry, 0, len(c.entries))
	for _, e := range c.entries {
		entries = append(entries, e)
	}
	c.mu.Unlock()
	for _, e := range entries {
		<-e.ready
	}
}

// close forgets everything.
func (c *cache) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name := range c.entries {
		c.drop(name)
	}
}

// templateKey returns the key of the template for a machine.
func (g *Ground) templateKey(recipe vmm.Spec, image rootfs.Image, kernelDigest string, rooted bool) templateKey {
	info := g.driver.Info()
	return templateKey{
		Form: templateForm, Image: image.Digest, Memory: recipe.Memory, VCPUs: recipe.VCPUs,
		Kernel: kernelDigest, Initrd: filepath.Base(recipe.Initrd), Driver: info.Name, VMM: info.Identity, Rooted: rooted,
	}
}

// clone plans a start as a clone of the machine's template. Where the machine has no disk
// yet, it gets a copy of the template's.
func (g *Ground) clone(ctx context.Context, plan *instance.Plan, l *layout, disk size.Bytes, key templateKey) error {
	name := key.name()
	recipe := plan.Recipe
	t, release, err := g.cache.use(ctx, name, func() (*template, error) {
		ctx := context.WithoutCancel(ctx)
		t, err := g.load(ctx, name)
		if err == nil {
			return t, nil
		}
		return g.make(ctx, key, recipe)
	})
	if err != nil {
		return err
	}
	if key.Rooted {
		err = l.makeDisk(func(path string) error { return t.copyDisk(ctx, path, disk) })
	}
	if err != nil {
		release()
		return err
	}
	plan.Source = vmm.Restore{Saved: t.saved, Memory: t.memory}
	plan.Magic, plan.Release = t.magic, release
	return nil
}

// collect removes the templates that were not used for longest until they take little
// enough. Those in memory stay: clones need their files too.
func (g *Ground) collect() error {
	type old struct {
		path string
		used time.Time
		size size.Bytes
	}
	entries, err := os.ReadDir(g.templates())
	if err != nil {
		return err
	}
	var all []old
	var total size.Bytes
	for _, e := range entries {
		path := filepath.Join(g.templates(), e.Name())
		fi, err := os.Stat(filepath.Join(path, manifestName))
		if err != nil {
			continue // being made
		}
		n, err := occupied(path)
		if err != nil {
			return err
		}
		total += n
		if !g.cache.has(e.Name()) {
			all = append(all, old{path, fi.ModTime(), n})
		}
	}
	slices.SortFunc(all, func(a, b old) int { return a.used.Compare(b.used) })
	for _, t := range all {
		if total <= g.quota {
			break
		}
		if err := os.RemoveAll(t.path); err != nil {
			return err
		}
		total -= t.size
	}
	return nil
}

// Recover ends and removes what an earlier daemon left of templates and captures that it
// was making. It is called before anything else.
func (g *Ground) Recover(ctx context.Context) error {
	entries, err := os.ReadDir(g.templates())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var errs []error
	for _, e := range entries {
		dir := filepath.Join(g.templates(), e.Name())
		if _, err := os.Stat(filepath.Join(dir, manifestName)); err == nil {
			continue
		}
		errs = append(errs, g.sweep(ctx, dir))
	}
	return errors.Join(append(errs, g.recoverSnapshots(ctx))...)
}

// sweep removes a template's folder, and first ends the machine that may be in it.
func (g *Ground) sweep(ctx context.Context, dir string) error {
	m, err := g.driver.Adopt(ctx, filepath.Join(dir, "vmm"))
	if err == nil {
		err = m.Kill(ctx)
	}
	if err != nil && !errors.Is(err, vmm.ErrEnded) {
		return fmt.Errorf("end what is left of a machine: %w", err)
	}
	return os.RemoveAll(dir)
}

// Close waits for what is being made, and lets templates go from memory. Machines that
// are clones of them go on.
func (g *Ground) Close() error {
	g.cache.settle()
	g.work.Wait() // it reads what is in memory
	g.cache.close()
	return nil
}
