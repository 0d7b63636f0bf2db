package machine

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/xfeldman/aegisvm/internal/size"
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

	users int // starts in progress; guarded by cache.mu, as what follows
	used  time.Time
	gone  bool // it is not among the entries any more: the last user lets it go
}

func (e *entry) isReady() bool {
	select {
	case <-e.ready:
		return true
	default:
		return false
	}
}

// lease is a template in use.
type lease struct {
	*template

	cache   *cache
	name    string
	entry   *entry
	release func() // gives it back; it may be called again
}

// errRemoved is the err of an entry that stood for a template while its files went.
var errRemoved = errors.New("the template was removed")

// use returns the template of that name, which get provides if it is not here yet.
// get goes on when the one who asked first leaves: others may wait for it.
func (c *cache) use(ctx context.Context, name string, get func() (*template, error)) (*lease, error) {
	for {
		e := c.take(name, get)
		l := &lease{cache: c, name: name, entry: e, release: sync.OnceFunc(func() { c.release(e) })}
		select {
		case <-e.ready:
		case <-ctx.Done():
			l.release()
			return nil, context.Cause(ctx)
		}
		if e.err == nil {
			l.template = e.template
			return l, nil
		}
		l.release()
		if !errors.Is(e.err, errRemoved) {
			return nil, e.err
		}
	}
}

// take returns the entry of that name for one more user, and makes it if there is none.
func (c *cache) take(name string, get func() (*template, error)) *entry {
	c.mu.Lock()
	defer c.mu.Unlock()
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
	return e
}

// release gives a template back, and lets those go that were not used for longest.
func (c *cache) release(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.users--
	if e.gone {
		c.finish(e)
		return
	}
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

// drop forgets an entry. What it holds goes with its last user. The caller holds mu.
func (c *cache) drop(name string) {
	e := c.entries[name]
	delete(c.entries, name)
	e.gone = true
	c.finish(e)
}

// finish lets go of what an entry that was dropped holds, once nobody uses it. The caller
// holds mu.
func (c *cache) finish(e *entry) {
	if e.users == 0 && e.template != nil {
		_ = e.template.memory.Close() // memory without a name: nothing is lost
		e.template = nil
	}
}

// spoil drops the template of a lease, unless somebody has done so, and returns what has to
// be called once its files are gone: who wants it meanwhile waits, and gets another. It
// returns nil if it did nothing.
func (l *lease) spoil() (gone func()) {
	l.cache.mu.Lock()
	defer l.cache.mu.Unlock()
	if l.cache.entries[l.name] != l.entry {
		return nil
	}
	l.cache.drop(l.name)
	return l.cache.reserve(l.name)
}

// reserve makes those who want a template wait until gone is called. The caller holds mu,
// and there is no entry.
func (c *cache) reserve(name string) (gone func()) {
	e := &entry{ready: make(chan struct{}), err: errRemoved}
	c.entries[name] = e
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.entries, name)
		e.gone = true
		close(e.ready)
	}
}

// without calls remove while nobody can use the template of that name. It does nothing if
// the template is in memory, or about to be.
func (c *cache) without(name string, remove func() error) error {
	c.mu.Lock()
	if c.entries[name] != nil {
		c.mu.Unlock()
		return nil
	}
	gone := c.reserve(name)
	c.mu.Unlock()
	defer gone()
	return remove()
}

// forget lets one go that will not be asked for again.
func (c *cache) forget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[name]; e != nil && e.isReady() {
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
