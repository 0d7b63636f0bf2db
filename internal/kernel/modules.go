package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// module is a wanted module; one that is not needed may be missing.
type module struct {
	name   string
	needed bool
}

// moduleSet is a stage of loading.
type moduleSet struct {
	name    string
	modules []module
}

// moduleSets lists what a guest loads, in order; dependencies are found. The early
// set decides how soon the control channel answers.
var moduleSets = []moduleSet{
	{"early", []module{
		{"virtio_ring", true},
		{"virtio", true},
		{"virtio_mmio", true},
		{"virtio_console", true},
		{"failover", false},
		{"net_failover", false},
		{"virtio_net", true},
		{"virtio_blk", true},
		{"virtio_pci", false},
	}},
	// Where the VMM has no serial port and no network card for us, PID 1 listens on vsock.
	{"vsock", []module{
		{"vmw_vsock_virtio_transport", false},
		{"tun", false},
	}},
	// crc32c is asked for by an alias that only depmod's tables resolve.
	{"root", []module{
		{"crc32c_generic", false},
		{"libcrc32c", false},
		{"erofs", true},
		{"overlay", true},
		{"ext4", true},
		{"virtio_rng", false},
		// To end connections that belong to somebody else: a clone's source, or a daemon
		// that has died.
		{"inet_diag", false},
		{"tcp_diag", false},
	}},
	{"workspace", []module{
		{"sunrpc", true}, {"grace", false}, {"lockd", true}, {"nfs_acl", false}, {"nfs", true}, {"nfsv3", true},
	}},
}

// withExtra returns the sets of a kernel with extra modules. They load with the root's.
func withExtra(extra []string) []moduleSet {
	sets := slices.Clone(moduleSets)
	for i, s := range sets {
		if s.name != "root" {
			continue
		}
		sets[i].modules = slices.Clone(s.modules)
		for _, name := range extra {
			sets[i].modules = append(sets[i].modules, module{name, true})
		}
	}
	return sets
}

// catalog knows the modules of one kernel.
type catalog struct {
	files   map[string]string // by canonical name: where the module's file is
	builtin map[string]bool   // by canonical name: part of the kernel
}

// canonical is the form in which the kernel knows a module's name.
func canonical(name string) string { return strings.ReplaceAll(name, "-", "_") }

// moduleName returns the name of the module in a file, or "".
func moduleName(file string) string {
	base := filepath.Base(file)
	for _, ext := range []string{".ko", ".ko.xz", ".ko.zst", ".ko.gz"} {
		if name, ok := strings.CutSuffix(base, ext); ok && name != "" {
			return canonical(name)
		}
	}
	return ""
}

// readCatalog reads a folder of modules such as /lib/modules/6.1.0-1-amd64.
func readCatalog(dir string) (*catalog, error) {
	c := &catalog{files: map[string]string{}, builtin: map[string]bool{}}
	list, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(list)) {
		if name := moduleName(strings.TrimSpace(line)); name != "" {
			c.builtin[name] = true
		}
	}
	err = filepath.WalkDir(filepath.Join(dir, "kernel"), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := moduleName(path); name != "" && d.Type().IsRegular() {
			c.files[name] = path
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // a kernel may have all built in
		return nil, err
	}
	return c, nil
}

// loadable is a module as the initramfs holds it.
type loadable struct {
	name string
	data []byte
}

// resolve returns the modules of each set in the order in which they load, with
// all they depend on. A needed module that is neither there nor built in is an
// error that names it.
func (c *catalog) resolve(sets []moduleSet) (map[string][]loadable, error) {
	out := map[string][]loadable{}
	done := map[string]bool{}
	for _, set := range sets {
		for _, m := range set.modules {
			mods, err := c.closure(canonical(m.name), m.needed, done)
			if err != nil {
				return nil, err
			}
			out[set.name] = append(out[set.name], mods...)
		}
	}
	return out, nil
}

// closure returns name's module and what it needs that is not done yet.
func (c *catalog) closure(name string, needed bool, done map[string]bool) ([]loadable, error) {
	if done[name] || c.builtin[name] {
		return nil, nil
	}
	file, ok := c.files[name]
	if !ok && !needed {
		return nil, nil
	}
	if !ok {
		return nil, &missingModuleError{name}
	}
	done[name] = true // before its dependencies: a circle ends here
	data, err := readModule(file)
	if err != nil {
		return nil, err
	}
	info, err := parseModule(data)
	if err != nil {
		return nil, fmt.Errorf("read module %s: %w", file, err)
	}
	var out []loadable
	for _, dep := range info.pre {
		mods, err := c.closure(canonical(dep), false, done)
		if err != nil {
			return nil, err
		}
		out = append(out, mods...)
	}
	for _, dep := range info.depends {
		mods, err := c.closure(canonical(dep), true, done)
		if err != nil {
			return nil, err
		}
		out = append(out, mods...)
	}
	return append(out, loadable{name, data}), nil
}

// missingModuleError names a module that a kernel must have and has not.
type missingModuleError struct{ name string }

func (e *missingModuleError) Error() string { return "the kernel has no module " + e.name }

// check says whether machines can run on the kernel with these modules, and whether it
// has the extra ones.
func check(modules string, extra []string) error {
	c, err := readCatalog(modules)
	if err != nil {
		return err
	}
	if _, err := c.resolve(withExtra(extra)); err != nil {
		return fault.Wrap(fault.Unavailable, err, "the kernel of %s cannot be used", filepath.Base(modules)).By(fault.Host)
	}
	return nil
}
