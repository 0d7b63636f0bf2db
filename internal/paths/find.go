package paths

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// exeDir is the folder of the running program, links resolved.
func exeDir() (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	if exe, err = filepath.EvalSymlinks(exe); err != nil {
		return "", err
	}
	return filepath.Dir(exe), nil
}

// libDirs are the folders in which packages keep programs that are not for people.
var libDirs = []string{"/usr/local/lib/aegisvm", "/usr/lib/aegisvm", "/opt/homebrew/lib/aegisvm"}

// Find returns the path of a program that a kit names: beside the running program, on
// PATH, else in a package's lib folder. name is a file's name, never a path. The error
// wraps fs.ErrNotExist.
func Find(name string) (string, error) {
	dir, err := exeDir()
	if err != nil {
		return "", err
	}
	if p := filepath.Join(dir, name); isProgram(p) {
		return p, nil
	}
	if p, err := exec.LookPath(name); err == nil && filepath.IsAbs(p) {
		return p, nil
	}
	for _, lib := range append([]string{filepath.Join(dir, "..", "lib", "aegisvm")}, libDirs...) {
		if p := filepath.Join(lib, name); isProgram(p) {
			return p, nil
		}
	}
	return "", fmt.Errorf("the program %s is not beside aegisd, on PATH, nor in a lib folder: %w", name, os.ErrNotExist)
}

func isProgram(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Mode().IsRegular() && fi.Mode().Perm()&0o111 != 0
}

// KitDirs are the folders in which kits are looked for, in this order: beside the
// installation, the user's own, and where packages keep them.
func (h Home) KitDirs() []string {
	var dirs []string
	dir, err := exeDir()
	if err == nil {
		dirs = append(dirs, filepath.Join(dir, "..", "kits"))
	}
	dirs = append(dirs, h.Kits())
	if err == nil {
		dirs = append(dirs, filepath.Join(dir, "..", "share", "aegisvm", "kits"))
	}
	return append(dirs, "/usr/local/share/aegisvm/kits", "/usr/share/aegisvm/kits")
}
