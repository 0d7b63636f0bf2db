package instance

import (
	"context"
	"fmt"
	"io"
	"net"

	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// Workspaces finds, makes and serves the folders of the host that instances work in.
// Package workspace implements it. Its methods may be called together.
type Workspaces interface {
	// Check says what is wrong with f. A folder of the host's that is not there is
	// wrong; one that is for AegisVM to make is not.
	Check(f Folders) error

	// Dir returns where on the host the workspace of an instance is. It does no I/O.
	Dir(id ID, f Folders) string

	// Ensure makes those folders of an instance that are for AegisVM to make.
	Ensure(id ID, f Folders) error

	// Open opens the folders of an instance for one machine, and makes what is to be
	// made. There is one at a time for each instance.
	Open(id ID, f Folders, life Life) (Workspace, error)

	// Files opens the workspace of an instance for the host, whether or not a guest runs.
	// It makes nothing in the instance's own folder: an instance that is deleted stays so.
	Files(id ID, f Folders) (Files, error)

	// Copy makes the automatic workspace of one instance that of another, which has none
	// yet: contents, owners, modes, links and times. The one it is copied from should not
	// be written to meanwhile. After an error there is no copy.
	Copy(ctx context.Context, from, to ID) error

	// Clear removes the automatic workspace of an instance, and what it needed for
	// serving. It is idempotent, and leaves the folders of users alone.
	Clear(id ID) error
}

// Folders says which folders of the host an instance works in.
type Folders struct {
	// Workspace is what stands at /workspace: the name of a workspace, an absolute path
	// of the host's, or "" for one that goes with the instance.
	Workspace string `json:",omitempty"`
	// Of is the instance whose workspace it is, where that goes with another one.
	Of ID `json:",omitempty"`
	// Below is the folder in it that stands at /workspace; "" is all of it. The way to it
	// follows no links.
	Below    string  `json:",omitempty"`
	ReadOnly bool    `json:",omitempty"`
	Mounts   []Mount `json:",omitempty"` // folders beside it
	// Volatile says that a workspace that goes with the instance need not survive a crash
	// of the host. It is set for ephemeral ones.
	Volatile bool `json:"-"`
}

// Mount is a folder beside the workspace.
type Mount struct {
	Source   string // the name of a workspace, or an absolute path of the host's
	Target   string // absolute, in the guest
	ReadOnly bool   `json:",omitempty"`
}

// Shared reports whether anything that the guest writes may outlive the instance.
func (f Folders) Shared() bool { return !f.Own() || len(f.Mounts) > 0 }

// Own reports whether the workspace goes with the instance.
func (f Folders) Own() bool { return f.Workspace == "" && f.Of == "" }

// Life is what a guest knows of the folders it is to get.
type Life uint8

// The lives.
const (
	// Begins is a guest that has mounted nothing: it was just started.
	Begins Life = iota
	// GoesOn is a guest that has them mounted, and waits for answers to what it asked an
	// earlier daemon, or before its memory was saved.
	GoesOn
	// Branches is a guest with a copy of the memory of one that has them mounted. What
	// that one asked for is not for this one to go on with.
	Branches
)

// Workspace is the folders of one instance, served to one machine. Its methods may be
// called together.
type Workspace interface {
	// Mount is what the guest is to be asked for, once Serve has begun.
	Mount() guestproto.Mount

	// Serve answers the guest on ln, a listener on guestproto.MountPort of its gateway. It
	// returns nil after Close, and an error when ln fails. It closes ln.
	Serve(ln net.Listener) error

	// Close ends Serve after the requests in work have been answered, and puts on the disk
	// what the guest has written.
	Close() error
}

// Files is the host's way to the files of a workspace. Paths are relative to it; one
// that leads out of it, by ".." or by a link, is fault.Denied. Files over 10 MB are
// fault.TooLarge. Its methods may be called together.
type Files interface {
	Tree(path string) ([]Entry, error)
	Read(path string) ([]byte, error)
	ReadAtMost(path string, bytes int64) ([]byte, error) // and fault.TooLarge is of these
	Write(path string, r io.Reader) error
	PutBlob(r io.Reader) (Blob, error)
	Close() error
}

// Entry is one name in a folder of a workspace.
type Entry struct {
	Name  string
	IsDir bool
	Size  int64 // bytes; 0 for folders
}

// Blob is a picture in a workspace's blob store.
type Blob struct {
	Blob      string // its file's name: the SHA-256 of its contents, and an extension
	MediaType string
	Size      int64 // bytes
}

// checkFolders says what is wrong with the folders that an instance is to have.
func (w *World) checkFolders(f Folders) error {
	if w.Workspaces == nil {
		return nil
	}
	return w.Workspaces.Check(f)
}

// ensureFolders makes the folders of an instance, before it is started for the first
// time: clients may put files there while it does.
func (w *World) ensureFolders(id ID, f Folders) error {
	if w.Workspaces == nil {
		return nil
	}
	return w.Workspaces.Ensure(id, f)
}

// clear removes all files of an instance.
func (w *World) clear(id ID) error {
	if w.Workspaces != nil {
		if err := w.Workspaces.Clear(id); err != nil {
			return err
		}
	}
	return w.Ground.Clear(id)
}

// Files opens the workspace of an instance for the host. The caller closes it.
func (s *Set) Files(ref string) (Files, error) {
	a, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	if s.world.Workspaces == nil {
		return nil, errNoWorkspace
	}
	f, err := s.world.Workspaces.Files(a.id, a.spec.Folders)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.spec.Handle, err)
	}
	return f, nil
}
