package nfs

import (
	"container/list"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// file is an open file of the host.
type file struct {
	id    ident
	fd    int
	write bool // opened for writing too

	refs  int           // requests that use it
	used  time.Time     // when it was last asked for
	place *list.Element // in the order of use; nil when it is not kept any more
	dirty bool          // written since it was last synced
}

// files keeps files open that the guest uses. NFS has no open and close: a descriptor
// saves both around every read and write, lets a guest go on writing to a file that
// has become read-only meanwhile, and reading one that was removed on the host.
//
// What is not used is closed after a while, so that the space of files that are removed
// on the host comes back.
type files struct {
	max  int
	sync func(fd int) error // puts a file on the disk

	mu    sync.Mutex
	open  map[ident]*file
	order *list.List // of *file, the last one used first
	idle  *time.Timer
}

const (
	// idleFor is how long a file is kept that is not used, and orphanFor how long one
	// that has no name any more: nobody could open it again.
	idleFor   = time.Minute
	orphanFor = 10 * time.Minute
)

func newFiles(limit int) *files {
	return &files{max: limit, sync: syncData, open: map[ident]*file{}, order: list.New(), idle: time.NewTimer(idleFor)}
}

// get returns the open file id, which is to be released, or nil if there is none, or
// none for writing.
func (c *files) get(id ident, write bool) *file {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.open[id]
	if f == nil || write && !f.write {
		return nil
	}
	f.refs++
	f.used = time.Now()
	c.order.MoveToFront(f.place)
	return f
}

// put keeps a descriptor, and returns its file, which is to be released. One that can
// do no more than what is there already is closed.
func (c *files) put(id ident, fd int, write bool) *file {
	c.mu.Lock()
	var closing []*file
	f := c.open[id]
	if f != nil && (f.write || !write) {
		closing = append(closing, &file{fd: fd})
		c.order.MoveToFront(f.place)
	} else {
		if f != nil {
			closing = c.forget(f, closing)
		}
		f = &file{id: id, fd: fd, write: write}
		c.open[id] = f
		f.place = c.order.PushFront(f)
	}
	f.refs++
	f.used = time.Now()
	for e := c.order.Back(); e != nil && c.order.Len() > c.max; {
		last := e.Value.(*file)
		e = e.Prev()
		if last.refs == 0 {
			closing = c.forget(last, closing)
		}
	}
	c.mu.Unlock()
	c.shut(closing)
	return f
}

// forget takes f out, and adds it to what is to be closed if nobody uses it. c.mu is
// held.
func (c *files) forget(f *file, closing []*file) []*file {
	c.order.Remove(f.place)
	f.place = nil
	delete(c.open, f.id)
	if f.refs == 0 {
		closing = append(closing, f)
	}
	return closing
}

// retain counts one more user of a file that is in use.
func (c *files) retain(f *file) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f.refs++
}

// release ends one use.
func (c *files) release(f *file) {
	c.mu.Lock()
	f.refs--
	last := f.refs == 0 && f.place == nil
	c.mu.Unlock()
	if last {
		c.shut([]*file{f})
	}
}

// drop forgets the file id, which has been removed. It is closed by the returned
// function, which takes as long as the host needs to free its space, or by whoever
// uses it still.
func (c *files) drop(id ident) (shut func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var closing []*file
	if f := c.open[id]; f != nil {
		f.dirty = false // nobody will read it
		closing = c.forget(f, closing)
	}
	return func() { c.shut(closing) }
}

// touched notes that f was written to, and synced that it is on the disk.
func (c *files) touched(f *file) { c.mark(f, true) }
func (c *files) synced(f *file)  { c.mark(f, false) }

func (c *files) mark(f *file, dirty bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f.dirty = dirty
}

// sweep closes what has not been used for long. It is called when idle fires.
func (c *files) sweep(now time.Time) {
	var old, closing []*file
	c.mu.Lock()
	for _, f := range c.open {
		if f.refs == 0 && now.Sub(f.used) >= idleFor {
			f.refs++ // while it is looked at
			old = append(old, f)
		}
	}
	c.mu.Unlock()
	orphan := map[*file]bool{}
	for _, f := range old {
		st, err := (place{fd: f.fd}).stat()
		orphan[f] = err == nil && st.links == 0
	}
	c.mu.Lock()
	for _, f := range old {
		f.refs--
		if f.place == nil { // it was dropped meanwhile
			if f.refs == 0 {
				closing = append(closing, f)
			}
			continue
		}
		if f.refs == 0 && (!orphan[f] || now.Sub(f.used) >= orphanFor) {
			closing = c.forget(f, closing)
		}
	}
	c.mu.Unlock()
	c.shut(closing)
	c.idle.Reset(idleFor)
}

// close closes all. Nobody uses any.
func (c *files) close() {
	c.idle.Stop()
	c.mu.Lock()
	var closing []*file
	for _, f := range c.open {
		closing = c.forget(f, closing)
	}
	c.mu.Unlock()
	c.shut(closing)
}

// shut closes files, and syncs before what was written and never asked to be: whoever
// asks later finds it done.
func (c *files) shut(closing []*file) {
	for _, f := range closing {
		if f.dirty {
			_ = c.sync(f.fd) // a commit that comes later meets the same error
		}
		_ = unix.Close(f.fd) // nothing is buffered
	}
}
