package workspace

import (
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// Target is where an instance has its workspace.
const Target = "/workspace"

// MaxMounts bounds the folders beside the workspace.
const MaxMounts = 16

// Spec says which folders an instance has.
type Spec struct {
	// Workspace is the name of a workspace, an absolute path of the host's, or "" for
	// one that goes with the instance.
	Workspace string
	// Of is the instance with whose workspace, which goes with it, this one works, where
	// Workspace is ""; "" is the instance itself.
	Of string
	// Below is the folder in all that which is the workspace; "" is all. It comes from a
	// guest, which may change what it leads to: the way to it follows no links.
	Below    string
	ReadOnly bool
	Mounts   []Mount
	// Volatile says that a workspace that goes with its instance is not missed after a
	// crash of the host, because the instance will not be there either.
	Volatile bool
}

// Mount is a folder beside the workspace.
type Mount struct {
	Source   string // the name of a workspace, or an absolute path of the host's
	Target   string // absolute, in the guest
	ReadOnly bool
}

// sources returns what the folders that outlive an instance are called.
func (s Spec) sources() []string {
	var out []string
	if s.Workspace != "" {
		out = append(out, s.Workspace)
	}
	for _, m := range s.Mounts {
		out = append(out, m.Source)
	}
	return out
}

var nameForm = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]*$`)

// maxName is the longest name of a workspace.
const maxName = 128

// reserved is where the guest has its own.
var reserved = []string{"/proc", "/sys", "/dev", "/aegis", "/run/aegis"}

// Check says what is wrong with a Spec. It does no I/O.
func (s Spec) Check() error {
	if s.Workspace != "" {
		if err := checkSource("workspace", s.Workspace); err != nil {
			return err
		}
	}
	if s.Below != "" && (!filepath.IsLocal(s.Below) || strings.ContainsRune(s.Below, 0)) {
		return outside(s.Below)
	}
	if len(s.Mounts) > MaxMounts {
		return fault.New(fault.Invalid, "%d folders are to be mounted, at most %d can be", len(s.Mounts), MaxMounts)
	}
	targets := []string{Target}
	for _, m := range s.Mounts {
		if err := checkSource("folder to mount", m.Source); err != nil {
			return err
		}
		target := path.Clean(m.Target)
		switch {
		case !path.IsAbs(m.Target) || target == "/" || strings.ContainsRune(m.Target, 0):
			return fault.New(fault.Invalid, "cannot mount a folder on %q", m.Target).WithHint("give an absolute path in the VM, as in --mount ./data:/data")
		case slices.ContainsFunc(reserved, func(r string) bool { return within(target, r) }):
			return fault.New(fault.Invalid, "cannot mount a folder on %s: it belongs to the VM's system", target).WithHint("give another path in the VM")
		case slices.Contains(targets, target):
			return fault.New(fault.Invalid, "two folders are to be mounted on %s", target).WithHint("give each one a place of its own")
		}
		targets = append(targets, target)
	}
	return nil
}

// within reports whether path is dir or below it. Both are clean.
func within(p, dir string) bool {
	return p == dir || strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/")
}

func checkSource(what, source string) error {
	switch {
	case filepath.IsAbs(source):
		if strings.ContainsRune(source, 0) {
			return fault.New(fault.Invalid, "bad path %q", source)
		}
		return nil
	case strings.ContainsRune(source, '/'):
		return fault.New(fault.Invalid, "%s %q is a relative path", what, source).WithHint("give an absolute path, or a name without '/'")
	case !nameForm.MatchString(source) || len(source) > maxName:
		return fault.New(fault.Invalid, "bad name of a workspace: %q", source).
			WithHint("a name has letters, digits, '.', '_' and '-', begins with a letter or digit, and is at most %d long; for a folder give a path, as in ./%s", maxName, source)
	}
	return nil
}
