//go:build linux

package pid1

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// loadModules loads the modules of a set, in the order of their names, which is
// that of their dependencies. A set that is not there is empty: it may be built
// into the kernel.
func loadModules(set string) error {
	paths, _ := filepath.Glob("/modules/" + set + "/*.ko") // the pattern is good
	for _, path := range paths {
		if err := loadModule(path); err != nil {
			return fmt.Errorf("load %s: %w", filepath.Base(path), err)
		}
	}
	return nil
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // read only
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}
