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
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/qcow2"
)

// maxChain is how many layers a disk may have when its instance is stopped. Each costs a
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
	bottom := d.Layers[len(d.Layers)-1]
	if bottom.Format != vmm.Raw {
		return fmt.Errorf("%s is of the format %s", bottom.ID, bottom.Format)
	}
	now := disk{Top: d.successor(), Format: vmm.Raw}
	path := filepath.Join(dir, now.Top)
	part := path + ".part"
	if err := os.RemoveAll(part); err != nil { // of a daemon that was killed here
		return err
	}
	if err := rootfs.CopySparse(g.layerPath(bottom.ID), part); err != nil {
		return err
	}
	err := g.fill(ctx, part, dir, d)
	if err == nil {
		err = errors.Join(rename(part, path), now.store(dir))
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(part))
	}
	return sweepTops(dir, now)
}

// fill writes what the layers above the lowest have, and the top, in their order.
func (g *Ground) fill(ctx context.Context, part, dir string, d disk) error {
	top := filepath.Join(dir, d.Top)
	bytes, err := qcow2.DiskSize(top, d.Format)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(part, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	err = f.Truncate(int64(bytes))
	for _, l := range slices.Backward(d.Layers[:len(d.Layers)-1]) {
		if err == nil {
			err = qcow2.Apply(ctx, f, g.layerPath(l.ID))
		}
	}
	if err == nil {
		err = qcow2.Apply(ctx, f, top)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
