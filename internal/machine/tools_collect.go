package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// marked returns the set that the machine in an instance's folder was started with.
func (g *Ground) marked(dir string) (toolSet, error) {
	b, err := os.ReadFile(filepath.Join(dir, toolsFileName))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil // it was started by a version that had none
	}
	if err == nil && len(b) > 0 && !toolSetForm.Match(b) {
		err = fmt.Errorf("%s: not a set of programs", filepath.Join(dir, toolsFileName))
	}
	return toolSet(b), err
}

// collectTools removes the disks that nobody names. It is called while nothing is being
// made: names come to be only after their disks.
func (g *Ground) collectTools() error {
	entries, err := os.ReadDir(g.home.Tools())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	named, err := g.namedTools()
	if err != nil {
		return err // what cannot be read may name any of them
	}
	var errs []error
	for _, e := range entries {
		if !named[toolSet(strings.TrimSuffix(e.Name(), ".erofs"))] {
			errs = append(errs, os.Remove(filepath.Join(g.home.Tools(), e.Name())))
		}
	}
	return errors.Join(errs...)
}

// namedTools returns the sets that machines, saved ones, templates and snapshots have.
func (g *Ground) namedTools() (map[toolSet]bool, error) {
	named := map[toolSet]bool{}
	err := eachRecord(g.home.Instances(), toolsFileName, func(data []byte) error {
		named[toolSet(data)] = true
		return nil
	})
	note := func(data []byte) error {
		var m struct {
			Tools toolSet                 `json:"tools"`
			Key   struct{ Tools toolSet } `json:"key"`
		}
		if json.Unmarshal(data, &m) == nil { // what cannot be read cannot be started from
			named[m.Tools], named[m.Key.Tools] = true, true
		}
		return nil
	}
	return named, errors.Join(err,
		eachRecord(g.home.Instances(), filepath.Join(savedDir, manifestName), note),
		eachRecord(g.home.Snapshots(), manifestName, note),
		eachRecord(g.home.Templates(), manifestName, note))
}
