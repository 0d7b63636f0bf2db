package workspace

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"syscall"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/paths"
)

// Store finds and makes the workspaces of a home. Its methods may be called together.
type Store struct {
	home paths.Home
	log  *slog.Logger
}

// New returns the Store of a home. It does no I/O.
func New(home paths.Home, log *slog.Logger) *Store { return &Store{home, log} }

var idForm = regexp.MustCompile(`^inst-[0-9a-z]+$`)

// The names in an instance's folder.
const (
	automatic = "workspace"
	journal   = "nfs.journal"
)

// own returns a path in the instance's folder. An id that is no id never becomes one.
func (s *Store) own(id, name string) (string, error) {
	if !idForm.MatchString(id) {
		return "", fault.New(fault.Internal, "%q is not the id of an instance", id)
	}
	return filepath.Join(s.home.Instance(id), name), nil
}

// Dir returns the folder behind an instance's workspace. It does no I/O: the folder
// need not be there.
func (s *Store) Dir(id string, spec Spec) string {
	dir := s.home.Workspace(spec.Workspace)
	switch {
	case spec.Workspace == "":
		dir = filepath.Join(s.home.Instance(cmp.Or(spec.Of, id)), automatic)
	case filepath.IsAbs(spec.Workspace):
		dir = spec.Workspace
	}
	return filepath.Join(dir, spec.Below)
}

// Check says what is wrong with a Spec on this host, where folders of the user's have
// to be there. It makes nothing.
func (s *Store) Check(spec Spec) error {
	if err := spec.Check(); err != nil {
		return err
	}
	for _, source := range spec.sources() {
		if filepath.IsAbs(source) {
			if _, err := s.existing(source); err != nil {
				return err
			}
		}
	}
	if spec.Below == "" && spec.Of == "" {
		return nil
	}
	f, err := s.OpenFiles(spec.Of, spec)
	if err != nil {
		return err
	}
	return f.Close()
}

// Ensure makes those folders of an instance that are for AegisVM to make. The others
// have to be there.
func (s *Store) Ensure(id string, spec Spec) error {
	if _, err := s.workspace(id, spec); err != nil {
		return err
	}
	for _, m := range spec.Mounts {
		if _, err := s.source(m.Source); err != nil {
			return err
		}
	}
	return nil
}

// workspace returns the folder behind an instance's workspace. It is made if that is
// for AegisVM to do, and else has to be there.
func (s *Store) workspace(id string, spec Spec) (string, error) {
	if spec.Workspace != "" {
		return s.source(spec.Workspace)
	}
	dir, err := s.own(cmp.Or(spec.Of, id), automatic)
	if err != nil || spec.Of != "" { // that is for the other to make
		return dir, err
	}
	return dir, makeDir(filepath.Dir(dir), dir)
}

// source returns the folder of a name or a path.
func (s *Store) source(source string) (string, error) {
	if err := checkSource("workspace", source); err != nil {
		return "", err
	}
	if filepath.IsAbs(source) {
		return s.existing(source)
	}
	dir := s.home.Workspace(source)
	return dir, makeDir(s.home.Workspaces(), dir)
}

// makeDir makes dir, and the private folder that it is in. Within a guest all users
// may look into their workspace; on the host none gets there.
func makeDir(parent, dir string) error {
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return storage(err, "make the workspace")
	}
	err := os.Mkdir(dir, 0o755) //nolint:gosec // within a private folder
	if errors.Is(err, fs.ErrExist) {
		fi, err := os.Stat(dir)
		if err == nil && !fi.IsDir() {
			err = &fs.PathError{Op: "open", Path: dir, Err: syscall.ENOTDIR}
		}
		return storage(err, "open the workspace")
	}
	return storage(err, "make the workspace")
}

// existing returns a folder of the user's.
func (s *Store) existing(dir string) (string, error) {
	dir = filepath.Clean(dir)
	fi, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return "", fault.New(fault.NotFound, "there is no folder %s", dir).WithHint("make it first: mkdir -p %s", dir)
	case errors.Is(err, fs.ErrPermission):
		return "", fault.New(fault.Denied, "the folder %s may not be opened", dir).By(fault.Host).WithHint("does it belong to the user that aegis runs as?")
	case err != nil:
		return "", storage(err, "open the workspace")
	case !fi.IsDir():
		return "", fault.New(fault.Invalid, "%s is not a folder", dir).WithHint("a workspace is a folder; to copy a file use: aegis cp")
	}
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", storage(err, "open the workspace")
	}
	if s.isOurs(real) {
		return "", fault.New(fault.Denied, "the folder %s belongs to AegisVM itself", dir).WithHint("give another folder, or the name of a workspace")
	}
	return dir, nil
}

// isOurs reports whether a guest that can write to dir could change what the daemon
// lives by.
func (s *Store) isOurs(dir string) bool {
	home, err := filepath.EvalSymlinks(string(s.home))
	if err != nil || !within(dir, home) {
		return false
	}
	named, err := filepath.EvalSymlinks(s.home.Workspaces())
	return err != nil || dir == named || !within(dir, named)
}

// Clear removes what goes with an instance: its automatic workspace. It is idempotent.
func (s *Store) Clear(id string) error {
	for _, name := range []string{automatic, journal} {
		path, err := s.own(id, name)
		if err != nil {
			return err
		}
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("remove the workspace of %s: %w", id, err)
		}
	}
	return nil
}

// storage says whose fault an error of the host's file system is. nil stays nil.
func storage(err error, doing string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fault.Wrap(fault.Exhausted, err, "%s", doing).By(fault.Host).WithHint("free some space on the host's disk")
	case errors.Is(err, fs.ErrPermission):
		return fault.Wrap(fault.Denied, err, "%s", doing).By(fault.Host)
	}
	return fault.Wrap(fault.Unavailable, err, "%s", doing).By(fault.Host)
}
