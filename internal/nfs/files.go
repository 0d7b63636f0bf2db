package nfs

import (
	"container/list"
	"sync"

	"golang.org/x/sys/unix"
)

// file is an open file of the host.
type file struct {
	id    ident
	fd    int
	write bool // opened for writing too

	refs  int           // requests that use it
	place *list.Element // in the order of use; nil when it is not kept any more
	dirty bool          // written since it was last synced
}

// files keeps files open that the guest uses. NFS has no open and close: a descriptor
// saves both around every read and write, lets a guest go on writing to a file that
// has become read-only meanwhile, and reading one that was removed on the host.
type files struct {
	max  int
	sync func(fd int) error // puts a file on the disk

	mu    sync.Mutex
	open  map[ident]*file
	order *list.List // of *file, the last one used first
}

func newFiles(limit int) *files {
	return &files{max: limit, sync: syncData, open: map[ident]*file{}, order: list.New()}
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

// drop closes the file id as soon as nobody uses it: it has been removed.
func (c *files) drop(id ident) {
	c.mu.Lock()
	var closing []*file
	if f := c.open[id]; f != nil {
		f.dirty = false // nobody will read it
		closing = c.forget(f, closing)
	}
	c.mu.Unlock()
	c.shut(closing)
}

// touched notes that f was written to, and synced that it is on the disk.
func (c *files) touched(f *file) { c.mark(f, true) }
func (c *files) synced(f *file)  { c.mark(f, false) }

func (c *files) mark(f *file, dirty bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f.dirty = dirty
}

// close closes all. Nobody uses any.
func (c *files) close() {
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
