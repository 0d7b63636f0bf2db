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

// prefixes are the roots of installations: programs that are not for people are in
// lib/aegisvm of one, kits in share/aegisvm/kits. A package of its own, such as the Agent Kit,
// may have another root than the running program: Homebrew gives each a folder, and links all
// of them into one.
var prefixes = []string{"/usr/local", "/usr", "/opt/homebrew", "/home/linuxbrew/.linuxbrew"}

// installed are the folders sub of the installation that dir, the folder of the running
// program, belongs to, and of all others.
func installed(dir, sub string) []string {
	dirs := []string{filepath.Join(dir, "..", sub)}
	for _, prefix := range prefixes {
		dirs = append(dirs, filepath.Join(prefix, sub))
	}
	return dirs
}

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
	for _, lib := range installed(dir, "lib/aegisvm") {
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
	dir, err := exeDir()
	if err != nil {
		return []string{h.Kits()}
	}
	return append([]string{filepath.Join(dir, "..", "kits"), h.Kits()}, installed(dir, "share/aegisvm/kits")...)
}
