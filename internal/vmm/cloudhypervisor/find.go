package cloudhypervisor

import (
	"os/exec"
	"path/filepath"

	"github.com/xfeldman/aegisvm/internal/paths"
)

// Find returns the path of the program: the one that is named, or that of PATH or a
// package, or the one in lib.
func Find(named, lib string) (string, error) {
	if named != "" {
		path, err := exec.LookPath(named)
		if err != nil {
			return "", errMissing(named, err)
		}
		return filepath.Abs(path)
	}
	path, err := paths.Find(Program)
	if err != nil && lib != "" {
		path, err = exec.LookPath(filepath.Join(lib, Program))
	}
	if err != nil {
		return "", errMissing(Program, err)
	}
	return filepath.Abs(path)
}
