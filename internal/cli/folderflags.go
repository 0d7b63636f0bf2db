package cli

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/xfeldman/aegisvm/api"
)

// folderFlags are --workspace and --mount. Paths are of the folder that the command is
// given in; the daemon gets them whole.
type folderFlags struct {
	workspace string
	readOnly  bool
	mounts    []api.Mount
}

// add adds --workspace and --mount.
func (o *folderFlags) add(f *pflag.FlagSet) {
	f.Var(workspaceFlag{o}, "workspace", "the VM's /workspace: `NAME|PATH[:ro]`, one that is kept by that name, or a folder of this host ('.', or with a '/'); else it goes with the VM")
	f.Var(mountFlag{o}, "mount", "have `SRC:DST[:ro]`, a NAME or PATH as for --workspace, at DST in the VM (repeat)")
}

// workspaceFlag is --workspace.
type workspaceFlag struct{ all *folderFlags }

func (f workspaceFlag) Set(s string) (err error) {
	source, readOnly := cutMode(s)
	f.all.workspace, err = folderOf(source)
	f.all.readOnly = readOnly
	return err
}

func (workspaceFlag) String() string { return "" }
func (workspaceFlag) Type() string   { return "workspace" }

// mountFlag is --mount.
type mountFlag struct{ all *folderFlags }

func (f mountFlag) Set(s string) error {
	rest, readOnly := cutMode(s)
	i := strings.LastIndexByte(rest, ':') // a path of this host may have others
	if i < 0 {
		return fmt.Errorf("%q does not say where: SRC:DST, as in ./data:/data", s)
	}
	source, err := folderOf(rest[:i])
	if err != nil {
		return err
	}
	target := rest[i+1:]
	if !strings.HasPrefix(target, "/") {
		return fmt.Errorf("%q is not an absolute path in the VM", target)
	}
	f.all.mounts = append(f.all.mounts, api.Mount{Source: source, Target: target, ReadOnly: readOnly})
	return nil
}

func (mountFlag) String() string { return "" }
func (mountFlag) Type() string   { return "mount" }

// cutMode takes ":ro" or ":rw" off the end.
func cutMode(s string) (rest string, readOnly bool) {
	if rest, ok := strings.CutSuffix(s, ":ro"); ok {
		return rest, true
	}
	return strings.TrimSuffix(s, ":rw"), false
}

// folderOf returns a name as it is, and a path as an absolute one.
func folderOf(s string) (string, error) {
	switch {
	case s == "":
		return "", errors.New("give the name of a workspace, or a path")
	case s == "." || s == ".." || strings.ContainsRune(s, '/'):
		return filepath.Abs(s)
	}
	return s, nil
}
