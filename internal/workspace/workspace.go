package workspace

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path"

	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/nfs"
)

// Port is where the guest expects the server, on the gateway of its network.
const Port = guestproto.MountPort

// The numbers of the exports. They are the same in all instances, so that one that is
// made from another's memory finds its own folders behind what is mounted.
const (
	idWorkspace  = 1
	idFirstMount = 2
)

// Workspace is the folders of one instance, for one life of its VM or for as long as
// the daemon has a part in it. Its methods may be called together.
type Workspace struct {
	*Files

	server *nfs.Server
	mount  guestproto.Mount
}

// Life says what the VM has behind it.
type Life int

// The lives.
const (
	// Begins is a VM that starts and has nothing mounted.
	Begins Life = iota
	// GoesOn is a VM that has run with these folders under an earlier daemon, or before
	// its memory was saved, and waits for answers.
	GoesOn
	// Branches is a VM with a copy of another's memory, which has these folders mounted.
	// The answers are that one's.
	Branches
)

// Open opens the folders of an instance, and makes those that are for AegisVM to make.
// A guest's requests go on where an earlier daemon left them if its life goes on.
func (s *Store) Open(id string, spec Spec, life Life) (*Workspace, error) {
	if err := spec.Check(); err != nil {
		return nil, err
	}
	noted, err := s.own(id, journal)
	if err != nil {
		return nil, err
	}
	if err := s.Ensure(id, spec); err != nil {
		return nil, err
	}
	files, err := s.OpenFiles(id, spec)
	if err != nil {
		return nil, err
	}
	w := &Workspace{Files: files, mount: guestproto.Mount{Reconnect: life != Begins}}
	exports, err := w.exports(s, spec)
	if err == nil {
		err = s.prepare(id, noted, life)
	}
	if err == nil {
		w.server, err = nfs.New(nfs.Options{Log: s.log, PrivilegedPorts: true, Journal: noted}, exports...)
		err = storage(err, "open the workspace")
	}
	if err != nil {
		_ = files.Close() // nothing was written
		return nil, err
	}
	return w, nil
}

// prepare makes the instance's folder, and removes the answers of an earlier life.
func (s *Store) prepare(id, noted string, life Life) error {
	if err := os.MkdirAll(s.home.Instance(id), 0o700); err != nil {
		return storage(err, "make the folder of the instance")
	}
	if life == GoesOn {
		return nil
	}
	if err := os.Remove(noted); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return storage(err, "remove answers of an earlier life")
	}
	return nil
}

// exports returns what is served, and notes where the guest is to mount it.
func (w *Workspace) exports(s *Store, spec Spec) ([]nfs.Export, error) {
	var exports []nfs.Export
	add := func(e nfs.Export, target string) {
		exports = append(exports, e)
		w.mount.Mounts = append(w.mount.Mounts, guestproto.MountPoint{Export: e.Name, Target: target, ReadOnly: e.ReadOnly})
	}
	add(nfs.Export{Name: "/", Dir: w.dir, Below: w.below, ReadOnly: spec.ReadOnly, ID: idWorkspace, Volatile: spec.Volatile && spec.Workspace == "" && spec.Of == ""}, Target)
	for i, m := range spec.Mounts {
		dir, err := s.source(m.Source)
		if err != nil {
			return nil, err
		}
		e := nfs.Export{Name: fmt.Sprintf("/mounts/%d", i), Dir: dir, ReadOnly: m.ReadOnly, ID: uint64(idFirstMount + i)}
		add(e, path.Clean(m.Target))
	}
	return exports, nil
}

// Mount is what PID 1 of the guest is to be asked for, once Serve has begun.
func (w *Workspace) Mount() guestproto.Mount { return w.mount }

// Serve answers the guest on ln, which is Port on its gateway. It returns nil after
// Close, and an error when ln fails: it may then be called with another one.
func (w *Workspace) Serve(ln net.Listener) error { return w.server.Serve(ln) }

// Close ends Serve, puts on the disk what the guest has written, and lets go of the
// folders. Requests that are in work are answered first.
func (w *Workspace) Close() error { return errors.Join(w.server.Close(), w.Files.Close()) }
