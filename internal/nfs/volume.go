package nfs

import (
	"context"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// Export is a folder of the host that the guest can mount.
type Export struct {
	Name string // what is mounted: "/" or a path such as "/mounts/0"
	Dir  string // the folder on the host
	// Below is the folder in Dir that is exported, "" is Dir itself. Unlike Dir it may come
	// from a guest: the way to it follows no links.
	Below    string
	ReadOnly bool
	// ID is the number of the file system. Handles contain it: it is another one for
	// each name, and always the same for one name.
	ID uint64
	// Volatile says that nobody misses the files after a crash of the host: nothing is
	// synced.
	Volatile bool
}

// volume is an export that is served.
type volume struct {
	name     string
	id       uint64
	readOnly bool
	volatile bool
	log      *slog.Logger

	root   place
	dev    uint64 // the host's number of the root's device
	top    ident  // of the root
	owners owners
	euid   uint32 // of this process

	nodes   *table
	files   *files
	syncer  *syncer
	finder  *finder
	lists   lists
	memory  memory
	byStat  bool // the numbers in listings are not those of the files
	reborn  bool // times of birth change
	warning sync.Once
}

func openVolume(o Options, e Export) (*volume, error) {
	root, err := e.open()
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path.Join(e.Dir, e.Below), Err: err}
	}
	st, err := root.stat()
	if err != nil {
		root.close()
		return nil, &os.PathError{Op: "stat", Path: e.Dir, Err: err}
	}
	v := &volume{
		name: e.Name, id: e.ID, readOnly: e.ReadOnly, volatile: e.Volatile, log: o.Log.With(slog.String("export", e.Name)),
		root: root, dev: st.id.dev, euid: uint32(os.Geteuid()), //nolint:gosec // not negative on these systems
	}
	v.owners = owners{v.euid, uint32(os.Getegid())} //nolint:gosec // as above
	if v.euid == 0 {
		v.owners = owners{st.uid, st.gid}
	}
	v.reborn = root.layered()
	v.top = v.local(st).id
	v.nodes = newTable(v.top, o.MaxNodes)
	v.files = newFiles(o.MaxFiles)
	if e.Volatile {
		v.files.sync = func(int) error { return nil }
	}
	v.lists.limit = maxListed
	v.syncer = newSyncer(v)
	v.finder = newFinder(v)
	v.byStat = v.numbersLie()
	return v, nil
}

// open opens the folder that is exported.
func (e Export) open() (place, error) {
	root, err := openFolder(e.Dir)
	if err != nil || e.Below == "" {
		return root, err
	}
	defer root.close()
	if !filepath.IsLocal(e.Below) {
		return nowhere, unix.EXDEV
	}
	p, err := root.below(path.Clean(e.Below))
	if err != nil {
		return nowhere, err
	}
	st, err := p.stat()
	if err == nil && st.kind != typeFolder {
		err = unix.ENOTDIR
	}
	if err != nil {
		p.close()
		return nowhere, err
	}
	return p, nil
}

// close ends what is under way, puts on the disk what is not there yet, and gives all
// descriptors back.
func (v *volume) close() {
	v.finder.close()
	v.syncer.close()
	v.files.close()
	v.root.close()
}

// local is st as handles have it. The root's device has the number 0: the host's number
// may be another one after it was started anew.
func (v *volume) local(st stat) stat {
	if st.id.dev == v.dev {
		st.id.dev = 0
	}
	if v.reborn {
		st.id.gen = 0
	}
	return st
}

// numbersLie reports whether the file numbers in the root's listing differ from those
// of the files, as they do on some layered file systems.
func (v *volume) numbersLie() bool {
	lie, n := false, 0
	err := v.root.entries(func(e entry) bool {
		st, err := v.root.statChild(e.name)
		lie = err == nil && !st.crossing && (st.id.ino != e.ino || st.id.dev != v.dev)
		n++
		return !lie && n < 64
	})
	return lie || err != nil
}

// object is an inode in use, resolved from a handle. It belongs to one request.
type object struct {
	place

	v    *volume
	node *node
	st   stat  // as it was when it was resolved
	file *file // the place is this file's descriptor, and not the object's to close
}

func (o *object) close() {
	if o.file != nil {
		o.v.files.release(o.file)
		return
	}
	if o.place != o.v.root {
		o.place.close()
	}
}

// isRoot reports whether o is what the guest has mounted.
func (o *object) isRoot() bool { return o.node == o.v.nodes.root }

// refresh reads what has become of o.
func (o *object) refresh() error {
	st, err := o.stat()
	if err != nil {
		return err
	}
	o.st = o.v.local(st)
	return nil
}

// open resolves a handle. Its errors are what the guest is told.
func (v *volume) open(ctx context.Context, id ident) (*object, error) {
	if id == v.top {
		o := &object{place: v.root, v: v, node: v.nodes.root}
		return o, o.refresh()
	}
	for looked := 0; ; {
		leads, age := v.nodes.leads(id)
		for _, l := range leads {
			if o, err := v.follow(l, id); o != nil || err != nil {
				return o, err
			}
		}
		if v.nodes.settle(age) {
			continue // a rename was under way
		}
		if o := v.unlinked(id); o != nil {
			return o, nil
		}
		// Twice: what was found can be gone again by now.
		if looked++; looked > 2 {
			return nil, errStale
		}
		if err := v.finder.find(ctx, id); err != nil {
			return nil, err
		}
	}
}

// follow returns the object at the end of a lead, or nil if it is not there.
func (v *volume) follow(l lead, id ident) (*object, error) {
	p, err := v.reach(l.path)
	if err != nil {
		// Only what says that there is nothing of that name makes it worth a search.
		if isErr(err, unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.EXDEV, unix.ENAMETOOLONG) {
			return nil, nil
		}
		return nil, err
	}
	o := &object{place: p, v: v}
	if err := o.refresh(); err != nil || o.st.id != id || o.st.crossing {
		p.close()
		return nil, err
	}
	o.node = v.nodes.add(l.spot.parent, l.spot.name, id)
	return o, nil
}

// reach resolves a path. On the way it may meet folders which their owner, who is root
// in the guest, cannot search: those are opened up.
func (v *volume) reach(path string) (place, error) {
	p, err := v.root.descend(path, place.below)
	if isErr(err, unix.EACCES) && v.euid != 0 && !v.readOnly {
		return v.walkIn(path)
	}
	return p, err
}

// unlinked returns the object of a file that has lost its last name while a descriptor
// is kept, as happens when somebody on the host removes what the guest has open.
func (v *volume) unlinked(id ident) *object {
	f := v.files.get(id, false)
	if f == nil {
		return nil
	}
	o := &object{place: place{fd: f.fd}, v: v, node: &node{key: id.key()}, file: f}
	if err := o.refresh(); err != nil || o.st.links > 0 {
		o.close()
		return nil
	}
	return o
}

// child returns what a name in the folder o is.
func (o *object) child(name string) (*object, error) {
	var p place
	err := o.unlocked(func() (err error) {
		p, err = o.below(name)
		return err
	})
	if isErr(err, unix.EXDEV) {
		return nil, errAccess // a mount: there, and closed
	}
	if err != nil {
		return nil, err
	}
	c := &object{place: p, v: o.v}
	if err := c.refresh(); err != nil {
		p.close()
		return nil, err
	}
	if c.st.crossing {
		p.close()
		return nil, errAccess
	}
	c.node = o.v.nodes.add(o.node, name, c.st.id)
	return c, nil
}

// attr returns o as the guest sees it.
func (o *object) attr() attr { return o.v.guestAttr(o.st, o.v.recordOf(o)) }

// warn says once that owners are not kept on this file system.
func (v *volume) warn() {
	v.warning.Do(func() {
		v.log.Warn("the file system takes no user attributes: owners and modes that a guest sets are forgotten when the daemon ends")
	})
}
