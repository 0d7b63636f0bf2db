//go:build linux

package pid1

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"sync"

	"golang.org/x/sys/unix"
)

// modules is the folder of kernel modules in the initramfs. It is held open: the
// switch of the root hides it, and some are loaded only when they are needed.
type modules struct {
	dir    *os.Root
	loaded *sync.Map // names of sets: the kernel reads a module to the end before it says that it has it
}

// openModules opens the folder. Without one all that is needed is built into the
// kernel.
func openModules() (modules, error) {
	dir, err := os.OpenRoot("/modules")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return modules{}, err
	}
	return modules{dir, &sync.Map{}}, nil
}

// load loads the modules of a set, in the order of their names, which is that of
// their dependencies. A set that is not there is empty.
func (m modules) load(set string) error {
	if m.dir == nil {
		return nil
	}
	if _, done := m.loaded.Load(set); done {
		return nil
	}
	names, _ := fs.Glob(m.dir.FS(), set+"/*.ko") // the pattern is good
	for _, name := range names {
		if err := m.loadOne(name); err != nil {
			return fmt.Errorf("load %s: %w", path.Base(name), err)
		}
	}
	m.loaded.Store(set, true)
	return nil
}

func (m modules) loadOne(name string) error {
	f, err := m.dir.Open(name)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // read only
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}
