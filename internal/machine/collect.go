package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// collect removes the templates that were not used for longest until they take little
// enough. Those in memory stay: clones need their files too.
func (g *Ground) collect() error {
	type old struct {
		path string
		used time.Time
		size size.Bytes
	}
	entries, err := os.ReadDir(g.templates())
	if err != nil {
		return err
	}
	var all []old
	var total size.Bytes
	for _, e := range entries {
		path := filepath.Join(g.templates(), e.Name())
		fi, err := os.Stat(filepath.Join(path, manifestName))
		if err != nil {
			continue // being made
		}
		n, err := occupied(path)
		if err != nil {
			return err
		}
		total += n
		if !g.cache.has(e.Name()) {
			all = append(all, old{path, fi.ModTime(), n})
		}
	}
	slices.SortFunc(all, func(a, b old) int { return a.used.Compare(b.used) })
	for _, t := range all {
		if total <= g.quota {
			break
		}
		if err := g.cache.without(filepath.Base(t.path), func() error { return g.remove(t.path) }); err != nil {
			return err
		}
		total -= t.size
	}
	return nil
}

// Recover ends and removes what an earlier daemon left of templates and captures that it
// was making. It is called before anything else.
func (g *Ground) Recover(ctx context.Context) error {
	entries, err := os.ReadDir(g.templates())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var errs []error
	for _, e := range entries {
		dir := filepath.Join(g.templates(), e.Name())
		if _, err := os.Stat(filepath.Join(dir, manifestName)); err == nil {
			continue
		}
		errs = append(errs, g.sweep(ctx, dir))
	}
	return errors.Join(append(errs, g.recoverSnapshots(ctx), g.collectTools())...)
}

// sweep removes a template's folder, and first ends the machine that may be in it.
func (g *Ground) sweep(ctx context.Context, dir string) error {
	m, err := g.driver.Adopt(ctx, filepath.Join(dir, "vmm"))
	if err == nil {
		err = m.Kill(ctx)
	}
	if err != nil && !errors.Is(err, vmm.ErrEnded) {
		return fmt.Errorf("end what is left of a machine: %w", err)
	}
	return os.RemoveAll(dir)
}

// Close waits for what is being made, and lets templates go from memory. Machines that
// are clones of them go on.
func (g *Ground) Close() error {
	g.cache.settle()
	g.work.Wait() // it reads what is in memory
	g.cache.close()
	return nil
}
