package nfs

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/xfeldman/aegisvm/internal/logattr"
)

const (
	// walkEntries and walkTime bound one walk. What lies beyond is stale.
	walkEntries = 4 << 20
	walkTime    = 20 * time.Second
	// walkRest is how long no walk begins after one, in multiples of its time, so that
	// a guest that asks for what does not exist costs a fifth of a processor.
	walkRest = 4
	// walkPatience is how long a request waits for a walk to begin. After it the guest
	// is told to ask again later.
	walkPatience = 3 * time.Second
	// goneFor is how long it is remembered that something is nowhere.
	goneFor = 2 * time.Second
	maxGone = 1024
)

// finder finds inodes that are not where they were.
type finder struct {
	v      *volume
	ctx    context.Context //nolint:containedctx // the life of walks, which serve many requests
	cancel context.CancelFunc
	ended  sync.WaitGroup

	mu      sync.Mutex
	gone    map[ident]time.Time
	wanted  map[key]int   // what requests wait for
	next    *walk         // that has not begun; nil if none is meant to
	last    *walk         // that was asked for; they are made one after the other
	resting time.Time     // no walk begins before
	walks   int           // that were made
	entries int           // that one looks at, at most
	rest    time.Duration // for each unit of time of a walk
}

// walk is one pass over the whole tree.
type walk struct {
	done chan struct{}
	made bool // before done: it was not put off
}

func newFinder(v *volume) *finder {
	f := &finder{v: v, gone: map[ident]time.Time{}, wanted: map[key]int{}, entries: walkEntries, rest: walkRest}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	return f
}

func (f *finder) close() {
	f.cancel()
	f.ended.Wait()
}

// find looks for id, and returns nil when the table may know more than before.
func (f *finder) find(ctx context.Context, id ident) error {
	if f.isGone(id) {
		return errStale
	}
	if f.nearby(ctx, id) {
		return nil
	}
	w := f.join(id.key()) //nolint:contextcheck // a walk serves many requests, and outlives this one
	defer f.leave(id.key())
	select {
	case <-w.done:
	case <-ctx.Done():
		return errJukebox
	}
	if !w.made {
		return errJukebox
	}
	if leads, _ := f.v.nodes.leads(id); len(leads) == 0 {
		f.bury(id)
		return errStale
	}
	return nil
}

func (f *finder) isGone(id ident) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	at, ok := f.gone[id]
	return ok && time.Since(at) < goneFor
}

// bury remembers that id is nowhere.
func (f *finder) bury(id ident) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for old := range f.gone {
		if len(f.gone) < maxGone {
			break
		}
		delete(f.gone, old)
	}
	f.gone[id] = time.Now()
}

// nearby looks for id in the folders where it had names: that is where most renames
// end. It reports whether the table knows something new.
func (f *finder) nearby(ctx context.Context, id ident) bool {
	leads, _ := f.v.nodes.leads(id)
	for _, l := range leads {
		if dir := f.folder(ctx, l.spot.parent); dir != nil {
			found := f.search(dir, id)
			dir.close()
			if found {
				return true
			}
		}
		// The name leads to something else, or nowhere: it is not to be followed again.
		f.v.nodes.forget(l.spot.parent, l.spot.name, id)
	}
	leads, _ = f.v.nodes.leads(id) // a walk for a folder may have come by
	return len(leads) > 0
}

// folder opens the folder n, wherever it is now; nil if it is nowhere.
func (f *finder) folder(ctx context.Context, n *node) *object {
	if dir := f.enter(n); dir != nil {
		return dir
	}
	id, sure := f.v.nodes.ident(n)
	if !sure {
		return nil
	}
	dir, err := f.v.open(ctx, id)
	if err != nil {
		return nil
	}
	return dir
}

// search looks for id in one folder.
func (f *finder) search(dir *object, id ident) bool {
	found := false
	err := dir.unlocked(func() error {
		return dir.entries(func(e entry) bool {
			if !f.v.byStat && e.ino != id.ino {
				return true
			}
			st, err := dir.statChild(e.name)
			if err == nil && !st.crossing && f.v.local(st).id == id {
				f.v.nodes.add(dir.node, e.name, id)
				found = true
			}
			return !found
		})
	})
	return err == nil && found
}

// join returns the walk that will answer whether k is anywhere: one that begins after
// this call, for a walk that is under way may have passed it.
func (f *finder) join(k key) *walk {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wanted[k]++
	if f.next == nil {
		w, before := &walk{done: make(chan struct{})}, f.last
		f.next, f.last = w, w
		f.ended.Go(func() { f.run(w, before) })
	}
	return f.next
}

func (f *finder) leave(k key) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.wanted[k]--; f.wanted[k] <= 0 {
		delete(f.wanted, k)
	}
}

func (f *finder) wants(k key) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.wanted[k] > 0
}

// run makes one walk, after the one before.
func (f *finder) run(w, before *walk) {
	defer close(w.done)
	if before != nil {
		<-before.done
	}
	if !f.pause() {
		f.mu.Lock()
		f.next = nil
		f.mu.Unlock()
		return
	}
	f.mu.Lock()
	f.next = nil // who comes now needs another one
	f.walks++
	f.mu.Unlock()
	begun := time.Now()
	ctx, cancel := context.WithTimeout(f.ctx, walkTime)
	defer cancel()
	seen, whole := f.walk(ctx)
	took := time.Since(begun)
	w.made = true
	f.mu.Lock()
	f.resting = time.Now().Add(f.rest * took)
	f.mu.Unlock()
	f.v.log.Debug("looked for files by a walk", slog.Int("entries", seen), slog.Bool("whole", whole), logattr.Took(took))
}

// pause waits until the next walk may begin. It reports whether that comes soon.
func (f *finder) pause() bool {
	f.mu.Lock()
	wait := time.Until(f.resting)
	f.mu.Unlock()
	if wait > walkPatience {
		return false
	}
	rest := time.NewTimer(wait)
	defer rest.Stop()
	select {
	case <-rest.C:
		return true
	case <-f.ctx.Done():
		return false
	}
}

// walk goes over the tree, level by level, and notes where everything is.
func (f *finder) walk(ctx context.Context) (seen int, whole bool) {
	folders := []*node{f.v.nodes.root}
	for len(folders) > 0 {
		here := folders[0]
		folders = folders[1:]
		dir := f.enter(here)
		if dir == nil {
			continue
		}
		_ = dir.entries(func(e entry) bool { // what cannot be read is not found
			if seen++; seen > f.entries || ctx.Err() != nil {
				return false
			}
			if n := f.note(dir, here, e); n != nil {
				folders = append(folders, n)
			}
			return true
		})
		dir.close()
		if seen > f.entries || ctx.Err() != nil {
			return seen, false
		}
	}
	return seen, true
}

// enter opens a folder that the walk has come by; nil if it is not there any more.
func (f *finder) enter(n *node) *object {
	v := f.v
	if n == v.nodes.root {
		o := &object{place: v.root, v: v, node: n}
		if o.refresh() != nil {
			return nil
		}
		return o
	}
	path, ok := v.nodes.folderPath(n)
	if !ok {
		return nil
	}
	p, err := v.reach(path)
	if err != nil {
		return nil
	}
	o := &object{place: p, v: v, node: n}
	if o.refresh() != nil || o.st.kind != typeFolder || o.st.crossing || o.st.id.key() != n.key {
		o.close()
		return nil
	}
	return o
}

// note puts an entry into the table, and returns its node if it is a folder.
func (f *finder) note(dir *object, parent *node, e entry) *node {
	k := key{dir.st.id.dev, e.ino}
	kind := e.kind
	if f.v.byStat || kind == 0 || kind == typeFolder || f.wants(k) {
		st, err := dir.statChild(e.name)
		if err != nil || st.crossing {
			return nil
		}
		st = f.v.local(st)
		k, kind = st.id.key(), st.kind
		if f.wants(k) {
			f.v.nodes.add(parent, e.name, st.id)
			if kind != typeFolder {
				return nil
			}
		}
	}
	n := f.v.nodes.hint(parent, e.name, k, f.wants(k))
	if kind != typeFolder {
		return nil
	}
	return n
}
