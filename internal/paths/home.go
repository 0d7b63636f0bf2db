package paths

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Home is the root of everything AegisVM keeps on disk, an absolute path.
type Home string

// Default returns the home named by $AEGIS_HOME, else ~/.aegis.
func Default() (Home, error) {
	if h := os.Getenv("AEGIS_HOME"); h != "" {
		abs, err := filepath.Abs(h)
		return Home(abs), err
	}
	dir, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no AEGIS_HOME and no home directory: %w", err)
	}
	return Home(filepath.Join(dir, ".aegis")), nil
}

func (h Home) join(elem ...string) string {
	return filepath.Join(append([]string{string(h)}, elem...)...)
}

// Socket is where the daemon serves its API, 0600.
func (h Home) Socket() string { return h.join("aegisd.sock") }

// Config is the configuration file; it need not exist.
func (h Home) Config() string { return h.join("config.toml") }

// MasterKey is the key that secrets are sealed with, 32 bytes, 0600.
func (h Home) MasterKey() string { return h.join("master.key") }

// Lib is the folder of programs that set-up has fetched.
func (h Home) Lib() string { return h.join("lib") }

// Kernel is the folder of the guest kernel, its modules and the initramfs.
func (h Home) Kernel() string { return h.join("kernel") }

// NinePKernel is the folder of the kernel with 9p, which only `aegis bench` boots.
func (h Home) NinePKernel() string { return h.join("kernel-9p") }

// Data is the folder of everything the daemon writes.
func (h Home) Data() string { return h.join("data") }

// PIDFile holds the daemon's process id.
func (h Home) PIDFile() string { return h.join("data", "aegisd.pid") }

// Lock is held by the one daemon of this home for as long as it lives.
func (h Home) Lock() string { return h.join("data", "aegisd.lock") }

// StartLock is held by whoever starts or stops the daemon, for as long as that takes.
func (h Home) StartLock() string { return h.join("data", "start.lock") }

// Log is the daemon's own log.
func (h Home) Log() string { return h.join("data", "aegisd.log") }

// Database is the daemon's record of instances and secrets, 0600.
func (h Home) Database() string { return h.join("data", "aegis.db") }

// Images is the folder of root file system images.
func (h Home) Images() string { return h.join("data", "images") }

// Templates is the folder of saved machines that new ones are cloned from.
func (h Home) Templates() string { return h.join("data", "templates") }

// Snapshots is the folder with one folder for each snapshot.
func (h Home) Snapshots() string { return h.join("data", "snapshots") }

// Layers is the folder of the files that the disks of instances and snapshots share.
func (h Home) Layers() string { return h.join("data", "layers") }

// Instances is the folder with one folder for each instance.
func (h Home) Instances() string { return h.join("data", "instances") }

// Instance is the folder of the instance id.
func (h Home) Instance(id string) string { return h.join("data", "instances", id) }

// Workspaces is the folder of named workspaces.
func (h Home) Workspaces() string { return h.join("data", "workspaces") }

// Workspace is the folder of the workspace name.
func (h Home) Workspace(name string) string { return h.join("data", "workspaces", name) }

// Tools is the folder of the read-only disks with AegisVM's own programs for the guest.
func (h Home) Tools() string { return h.join("data", "tools") }

// Sidecars is the folder of what is known of the programs that run beside instances.
func (h Home) Sidecars() string { return h.join("data", "sidecars") }

// Kits is the folder of the user's own kits, and, a folder for each handle, of the files
// that configure sidecars.
func (h Home) Kits() string { return h.join("kits") }

// Bench is the folder of the homes that `aegis bench` measures in, while it does.
func (h Home) Bench() string { return h.join("data", "bench") }

// BenchLock is held by whoever measures.
func (h Home) BenchLock() string { return h.join("data", "bench.lock") }

// Create makes the home and its folders, private to the user. Folders that
// exist are made private too.
func (h Home) Create() error {
	for _, dir := range []string{string(h), h.Data(), h.Images(), h.Instances(), h.Snapshots(), h.Layers(), h.Workspaces(), h.Kernel()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		if err := os.Chmod(dir, 0o700); err != nil { //nolint:gosec // a folder needs its x bit
			return err
		}
	}
	return nil
}

// Program returns the path of one of AegisVM's own programs: beside the running
// program, else in the package's lib folder (<exe dir>/../lib/aegisvm).
func Program(name string) (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	if exe, err = filepath.EvalSymlinks(exe); err != nil {
		return "", err
	}
	dir := filepath.Dir(exe)
	for _, p := range []string{filepath.Join(dir, name), filepath.Join(dir, "..", "lib", "aegisvm", name)} {
		if fi, err := os.Stat(p); err == nil && fi.Mode().IsRegular() {
			return p, nil
		} else if err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
	}
	return "", fmt.Errorf("%s is not beside %s nor in ../lib/aegisvm: %w", name, exe, os.ErrNotExist)
}
