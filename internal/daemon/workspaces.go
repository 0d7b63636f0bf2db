package daemon

import (
	"context"

	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/workspace"
)

// workspaces is the folders of the host that instances work in. It implements
// instance.Workspaces.
type workspaces struct{ store *workspace.Store }

// Check implements instance.Workspaces.
func (w workspaces) Check(f instance.Folders) error { return w.store.Check(foldersOf(f)) }

// Dir implements instance.Workspaces.
func (w workspaces) Dir(id instance.ID, f instance.Folders) string {
	return w.store.Dir(string(id), foldersOf(f))
}

// Ensure implements instance.Workspaces.
func (w workspaces) Ensure(id instance.ID, f instance.Folders) error {
	return w.store.Ensure(string(id), foldersOf(f))
}

var lives = map[instance.Life]workspace.Life{
	instance.Begins: workspace.Begins, instance.GoesOn: workspace.GoesOn, instance.Branches: workspace.Branches,
}

// Open implements instance.Workspaces.
func (w workspaces) Open(id instance.ID, f instance.Folders, life instance.Life) (instance.Workspace, error) {
	ws, err := w.store.Open(string(id), foldersOf(f), lives[life])
	if err != nil {
		return nil, err // not a nil *Workspace in a non-nil interface
	}
	return ws, nil
}

// Files implements instance.Workspaces.
func (w workspaces) Files(id instance.ID, f instance.Folders) (instance.Files, error) {
	files, err := w.store.OpenFiles(string(id), foldersOf(f))
	if err != nil {
		return nil, err // as above
	}
	return files, nil
}

// Copy implements instance.Workspaces.
func (w workspaces) Copy(ctx context.Context, from, to instance.ID) error {
	return w.store.Copy(ctx, string(from), string(to))
}

// Clear implements instance.Workspaces.
func (w workspaces) Clear(id instance.ID) error { return w.store.Clear(string(id)) }

func foldersOf(f instance.Folders) workspace.Spec {
	spec := workspace.Spec{Workspace: f.Workspace, Of: string(f.Of), Below: f.Below, ReadOnly: f.ReadOnly, Volatile: f.Volatile}
	for _, m := range f.Mounts {
		spec.Mounts = append(spec.Mounts, workspace.Mount(m))
	}
	return spec
}
