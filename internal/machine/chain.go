package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/xfeldman/aegisvm/internal/atomicfile"
	"github.com/xfeldman/aegisvm/internal/rootfs"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/qcow2"
)

// diskName is the file in an instance's folder that says what its disk is made of. Where
// it is missing the disk is the file InstanceDisk alone.
const diskName = "disk.json"

// disk is what an instance's disk is made of. A top that does not exist is an overlay
// to which nothing was written: the file is named before it is made, so that no death
// of a daemon loses one.
type disk struct {
	Top    string         `json:"top"` // the file in the instance's folder that its guest writes to
	Format vmm.DiskFormat `json:"format"`
	Size   size.Bytes     `json:"size,omitempty"` // of the disk, if it has layers
	Layers []layer        `json:"layers,omitempty"`
}

// layer is a file that disks lie on. It is only read, and goes with the last who names
// it.
type layer struct {
	ID     string         `json:"id"` // the file's name in the folder of layers
	Format vmm.DiskFormat `json:"format"`
}

// loadDisk reads what the disk in an instance's folder is made of.
func loadDisk(dir string) (disk, error) {
	data, err := os.ReadFile(filepath.Join(dir, diskName))
	if errors.Is(err, fs.ErrNotExist) {
		return disk{Top: InstanceDisk, Format: vmm.Raw}, nil
	}
	var d disk
	if err == nil {
		err = json.Unmarshal(data, &d)
	}
	if err == nil && (!isDiskFile(d.Top) || d.Format != vmm.Raw && d.Format != vmm.QCOW2) {
		err = fmt.Errorf("the disk %q", d.Top)
	}
	for _, l := range d.Layers {
		if err == nil && !layerForm.MatchString(l.ID) {
			err = fmt.Errorf("the layer %q", l.ID)
		}
	}
	if err != nil {
		return d, fmt.Errorf("%s: %w", filepath.Join(dir, diskName), err)
	}
	return d, nil
}

func (d disk) store(dir string) error {
	data, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return err
	}
	return rootfs.DiskFull(atomicfile.Write(filepath.Join(dir, diskName), append(data, '\n'), 0o600))
}

// isDiskFile reports whether name is that of a top: "disk", "disk.2" and so on.
func isDiskFile(name string) bool {
	rest, ok := strings.CutPrefix(name, InstanceDisk)
	if !ok || rest == "" {
		return ok
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(rest, "."), 10, 32)
	return err == nil && rest == "."+strconv.FormatUint(n, 10)
}

// successor returns the name of the top after this one.
func (d disk) successor() string {
	_, number, _ := strings.Cut(d.Top, ".")
	n, _ := strconv.Atoi(number) // of the first it is 0
	return InstanceDisk + "." + strconv.Itoa(max(n, 1)+1)
}

// device returns the disk as the machine of an instance is given it.
func (g *Ground) device(dir string, d disk) vmm.Disk {
	return vmm.Disk{Name: InstanceDisk, Path: filepath.Join(dir, d.Top), Format: d.Format, Backing: g.backing(d.Layers)}
}

func (g *Ground) backing(layers []layer) []vmm.Layer {
	var all []vmm.Layer
	for _, l := range layers {
		all = append(all, vmm.Layer{Path: g.layerPath(l.ID), Format: l.Format})
	}
	return all
}

// top returns the path of the file that an instance's guest writes to, which exists.
func (g *Ground) top(dir string) (string, error) {
	d, err := loadDisk(dir)
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, d.Top), g.ensureTop(dir, d)
}

// ensureTop makes the overlay that a disk was promised. One without a header was never
// used: see qcow2.Create.
func (g *Ground) ensureTop(dir string, d disk) error {
	if len(d.Layers) == 0 {
		return nil
	}
	top := filepath.Join(dir, d.Top)
	switch _, err := qcow2.DiskSize(top, d.Format); {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, qcow2.ErrNot):
		return g.overlay(top, d.Size, d.Layers)
	case err != nil:
		return err
	}
	return nil
}

// overlay makes an empty overlay on layers.
func (g *Ground) overlay(path string, bytes size.Bytes, layers []layer) error {
	part := path + ".part"
	if err := os.RemoveAll(part); err != nil { // of a daemon that was killed here
		return err
	}
	err := qcow2.Create(part, bytes, vmm.Layer{Path: g.layerPath(layers[0].ID), Format: layers[0].Format})
	if err == nil {
		err = os.Rename(part, path)
	}
	return rootfs.DiskFull(err)
}

// sweepTops removes the files of a folder that were tops once. Whoever calls it knows
// that the disk's record is what counts.
func sweepTops(dir string, d disk) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if name := strings.TrimSuffix(e.Name(), ".part"); isDiskFile(name) && name != d.Top {
			errs = append(errs, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}
