package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/rootfs"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/qcow2"
)

// maxChain is how many layers a disk may have when its instance is stopped, or when another
// begins with it. Each costs a
// read of a cluster that nobody has written to a look into its tables.
const maxChain = 8

// Tidy implements instance.Ground: a disk of many layers becomes one file.
func (g *Ground) Tidy(ctx context.Context, id instance.ID) error {
	dir, err := g.folder(id)
	if err != nil {
		return err
	}
	d, err := loadDisk(dir)
	if err != nil || len(d.Layers) <= maxChain {
		return err
	}
	if err := g.flatten(ctx, dir, d); err != nil {
		return rootfs.DiskFull(fmt.Errorf("make one file of the disk of %s: %w", id, err))
	}
	g.collectLater()
	return nil
}

func (g *Ground) flatten(ctx context.Context, dir string, d disk) error {
	if err := g.ensureTop(dir, d); err != nil {
		return err
	}
	top := filepath.Join(dir, d.Top)
	bytes, err := qcow2.DiskSize(top, d.Format)
	if err != nil {
		return err
	}
	before, err := os.Stat(top)
	if err != nil {
		return err
	}
	now := disk{Top: d.successor(), Format: vmm.Raw}
	path := filepath.Join(dir, now.Top)
	part := path + ".part"
	if err := os.RemoveAll(part); err != nil { // of a daemon that was killed here
		return err
	}
	err = g.merge(ctx, part, bytes, d.Layers, top)
	if err == nil {
		// Saved memory belongs to a disk that was written to last at that time.
		err = os.Chtimes(part, before.ModTime(), before.ModTime())
	}
	if err == nil {
		err = errors.Join(rename(part, path), now.store(dir))
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(part))
	}
	return sweepTops(dir, now)
}

// compact makes one layer of many. They may be in use: nobody writes to a layer. What is made
// of it goes with the last who names it, as any other.
func (c *capture) compact(ctx context.Context) error {
	if len(c.layers) <= maxChain {
		return nil
	}
	one := []layer{{ID: newLayerID(), Format: vmm.Raw}}
	c.g.pins.hold(one)
	if err := c.g.merge(ctx, c.g.layerPath(one[0].ID), c.size, c.layers); err != nil {
		c.g.pins.letGo(one) // and what was written of it is collected
		return rootfs.DiskFull(fmt.Errorf("make one file of the disk of %s: %w", c.source, err))
	}
	c.g.pins.letGo(c.layers)
	c.layers = one
	return nil
}

// merge makes a file, which is not there, of what layers hold, and the files above them, in
// their order.
func (g *Ground) merge(ctx context.Context, path string, bytes size.Bytes, layers []layer, above ...string) error {
	last := len(layers) - 1
	bottom := layers[last]
	if bottom.Format != vmm.Raw {
		return fmt.Errorf("%s is of the format %s", bottom.ID, bottom.Format)
	}
	if err := rootfs.CopySparse(g.layerPath(bottom.ID), path); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	err = f.Truncate(int64(bytes))
	apply := func(file string) {
		if err == nil {
			err = qcow2.Apply(ctx, f, file)
		}
	}
	for _, l := range slices.Backward(layers[:last]) {
		apply(g.layerPath(l.ID))
	}
	for _, file := range above {
		apply(file)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
