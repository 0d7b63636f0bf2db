package libkrun

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/xfeldman/aegisvm/internal/paths"
	"github.com/xfeldman/aegisvm/internal/vmm/libkrun/recipe"
)

// probeTimeout bounds the worker's look at the library.
const probeTimeout = 20 * time.Second

// unknownVersion is the version of a library whose file is not named after it.
const unknownVersion = "1"

// find finds the worker, and with it the library: the named one, or the first that
// there is.
func (d *Driver) find(ctx context.Context, named string) error {
	var err error
	if d.worker == "" {
		if d.worker, err = paths.Find(recipe.Program); err != nil {
			return errWorker(err)
		}
	}
	names := []string{named}
	if named == "" {
		names = append(beside(d.worker), libraries...)
	}
	var absent []error
	for _, name := range names {
		f, err := d.ask(ctx, name)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return errWorker(err)
		case f.Error != "":
			absent = append(absent, errors.New(f.Error))
			continue
		case len(f.Missing) > 0:
			return errOld(name, f)
		case len(f.Lacks) > 0:
			return errBuild(name, f)
		}
		d.path, d.version = name, f.Version
		if d.version == "" {
			d.version = unknownVersion
		}
		return nil
	}
	return errLibrary(named, errors.Join(absent...))
}

// beside returns where an installation keeps libraries that it has brought along.
func beside(program string) []string {
	dir := filepath.Dir(program)
	var found []string
	for _, lib := range []string{dir, filepath.Join(dir, "..", "lib", "aegisvm"), filepath.Join(dir, "..", "lib")} {
		path := filepath.Join(lib, libraryName)
		if _, err := os.Stat(path); err == nil {
			found = append(found, path)
		}
	}
	return found
}

// maxFacts bounds what a worker may say about a library.
const maxFacts = 1 << 20

// ask has the worker load a library, which runs its code: in a process of its own.
func (d *Driver) ask(ctx context.Context, name string) (*recipe.Facts, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, d.worker, recipe.Probe, name)
	cmd.Dir, cmd.Env = "/", environment()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s %s: %w: %s", d.worker, recipe.Probe, name, err, strings.TrimSpace(stderr.String()))
	}
	var f recipe.Facts
	if err := json.NewDecoder(io.LimitReader(bytes.NewReader(out), maxFacts)).Decode(&f); err != nil {
		return nil, fmt.Errorf("%s %s %s: %w", d.worker, recipe.Probe, name, err)
	}
	return &f, nil
}
