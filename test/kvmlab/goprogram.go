package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// goName makes the program go.
const goName = "go"

// built is what tests build: programs that their guests run, and tests that run in guests.
var built = [][]string{
	{"build", "./internal/vmm/vmmtest/guestinit"},
	{"test", "-c", "./internal/hostclock"},
}

// handOut is what tests in the lab have for go: "go build ... -o FILE PACKAGE" and
// "go test -c ... -o FILE PACKAGE" copy to FILE what the host's end has built of the package.
func handOut(args []string, folders ...string) error {
	out := slices.Index(args, "-o") + 1
	if len(args) < 4 || args[0] != "build" && args[0] != "test" || out == 0 || out >= len(args)-1 {
		return fmt.Errorf("go %q: in the lab there is only what was built before", args)
	}
	for _, dir := range folders {
		b, err := os.ReadFile(filepath.Join(dir, builtName(args[0], args[len(args)-1])))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		return os.WriteFile(args[out], b, 0o755) //nolint:gosec // it is run
	}
	return fmt.Errorf("%s was not built for the lab", args[len(args)-1])
}

// builtName is the name of the file that a command of go makes of a package.
func builtName(command, pkg string) string {
	if command == "test" {
		return filepath.Base(pkg) + ".test"
	}
	return filepath.Base(pkg)
}
