package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/kernel"
	"github.com/xfeldman/aegisvm/internal/logattr"
	"github.com/xfeldman/aegisvm/internal/rootfs"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/qcow2"
)

// maxLayers is how many layers a disk may have: each is an open file of its VMM. The drivers'
// own limit leaves room for those that a capture puts on top.
const maxLayers = 28

// maxCopy is how much memory is copied while its machine stands still. What takes longer
// than that to copy takes longer than it does to start the machine anew.
const maxCopy = 256 * size.MiB

// capture implements instance.Capture. Its folder is a snapshot's that has no manifest
// yet.
type capture struct {
	g      *Ground
	id     instance.SnapshotID
	dir    string
	source instance.ID
	recipe vmm.Spec // of the source's machine, without folder and disks
	base   string   // path of the base image
	image  string   // its digest, if there is memory, which has it mounted
	tools  toolSet  // which it has mounted too
	kept   bool

	layers []layer    // of the disk as it was captured, nearest first; pinned
	size   size.Bytes // of the disk
	branch disk       // what the source's disk is from here on
	undo   func() error

	saved   vmm.Saved
	memory  vmm.Memory // nil if there is none, or it was not loaded yet
	release func()     // gives back memory that others use too; nil is Close
	moved   bool       // the source's memory is what the capture has
	cold    bool
	useless error // why there is memory that cannot be used
	once    sync.Once
}

// Capture implements instance.Archive.
func (g *Ground) Capture(_ context.Context, id instance.ID, spec instance.Spec, live bool) (instance.Capture, error) {
	c, err := g.newCapture(id, spec, live)
	if err != nil {
		return nil, fmt.Errorf("capture %s: %w", id, err)
	}
	if err = c.cut(live); err == nil && !live {
		err = c.takeFiles()
	}
	if err != nil {
		c.Release()
		return nil, fmt.Errorf("capture %s: %w", id, err)
	}
	return c, nil
}

func (g *Ground) newCapture(id instance.ID, spec instance.Spec, live bool) (*capture, error) {
	if _, err := g.folder(id); err != nil {
		return nil, err
	}
	img, err := g.image(spec)
	if err != nil {
		return nil, err
	}
	c := &capture{g: g, id: instance.NewSnapshotID(), source: id, base: img.Path, recipe: g.savedRecipe(spec)}
	c.dir = g.snapshotDir(c.id)
	if live {
		mounted, err := os.ReadFile(filepath.Join(g.home.Instance(string(id)), imageFileName))
		if err != nil {
			return nil, err
		}
		if c.image = string(mounted); c.image != img.Digest {
			return nil, fault.New(fault.Conflict, "its image was replaced since it started").
				WithHint("stop it and start it: then it has the new one")
		}
		if c.tools, err = g.marked(g.home.Instance(string(id))); err != nil {
			return nil, err
		}
	}
	return c, rootfs.DiskFull(os.MkdirAll(c.dir, 0o700))
}

// savedRecipe is what machines that start from a saved one are given, but for names, folders
// and disks.
func (g *Ground) savedRecipe(spec instance.Spec) vmm.Spec {
	r := vmm.Spec{Memory: steps(spec.Memory), VCPUs: spec.VCPUs, Network: true}
	if k, err := kernel.Installed(g.home); err == nil {
		r.Kernel = k.Image // some VMMs look at it
	}
	return r
}

// cut makes the disk of the source a layer, and a branch of it its disk. A machine that
// runs goes on writing to what is a layer by name, until Take.
func (c *capture) cut(live bool) error {
	dir := c.g.home.Instance(string(c.source))
	before, err := loadDisk(dir)
	if err != nil {
		return err
	}
	if len(before.Layers) >= maxLayers {
		return fault.New(fault.Conflict, "its disk has %d layers, and can have no more", len(before.Layers)).
			WithHint("stop it and start it: that makes one of them")
	}
	c.layers, c.size = before.Layers, before.Size
	top := filepath.Join(dir, before.Top)
	fi, err := os.Stat(top)
	switch {
	case errors.Is(err, fs.ErrNotExist): // nothing was written to it
	case err != nil:
		return err
	default:
		own := layer{ID: newLayerID(), Format: before.Format}
		c.layers = append([]layer{own}, before.Layers...)
	}
	c.g.pins.hold(c.layers)
	if len(c.layers) == 0 {
		return nil // it has not been started yet, and has no disk
	}
	if fi != nil {
		if err := os.Link(top, c.g.layerPath(c.layers[0].ID)); err != nil {
			return rootfs.DiskFull(err)
		}
		if c.size, err = qcow2.DiskSize(top, before.Format); err != nil {
			return err
		}
	}
	c.branch = disk{Top: before.successor(), Format: vmm.QCOW2, Size: c.size, Layers: c.layers}
	if err := os.RemoveAll(filepath.Join(dir, c.branch.Top)); err != nil {
		return err
	}
	if !live && fi != nil {
		// Saved memory belongs to a disk that was written to last at that time.
		if err := c.g.overlay(filepath.Join(dir, c.branch.Top), c.size, c.layers); err != nil {
			return err
		}
		if err := os.Chtimes(filepath.Join(dir, c.branch.Top), fi.ModTime(), fi.ModTime()); err != nil {
			return err
		}
	}
	if err := c.branch.store(dir); err != nil {
		return err
	}
	c.undo = func() error { return before.store(dir) }
	if !live {
		c.undo = nil
		return sweepTops(dir, c.branch)
	}
	return nil
}

// Take implements instance.Capture.
func (c *capture) Take(ctx context.Context, m vmm.Machine) (moved bool, err error) {
	err = c.take(ctx, m)
	if err != nil && c.undo != nil {
		err = errors.Join(err, c.undo())
	}
	c.undo = nil
	if err != nil {
		return false, fmt.Errorf("capture %s: %w", c.source, err)
	}
	return c.moved, nil
}

// take is Take, after which undo undoes it, if it is not nil.
func (c *capture) take(ctx context.Context, m vmm.Machine) error {
	saver, saves := m.(vmm.Saver)
	if !saves {
		return errNoSave
	}
	overlay := filepath.Join(c.g.home.Instance(string(c.source)), c.branch.Top)
	forker, forks := m.(vmm.DiskForker)
	if !forks {
		return c.takeOver(ctx, saver, overlay)
	}
	if err := forker.ForkDisk(ctx, InstanceDisk, overlay); err != nil {
		return err
	}
	c.undo = nil // the machine writes to the branch
	// What it wrote to before is a layer now. Another capture may follow soon: now or never.
	if err := sweepTops(filepath.Dir(overlay), c.branch); err != nil {
		c.g.log.WarnContext(ctx, "remove the former disk", logattr.Err(err))
	}
	var err error
	c.saved, c.memory, err = saver.Save(ctx, vmm.Dest{Dir: c.dir, Hasty: true})
	if err != nil || c.memory == nil {
		return err
	}
	c.moved = !c.copyMemory(ctx)
	return nil
}

// takeOver takes a machine whose disk cannot be forked while it runs: it is ended, and goes
// on as a copy of itself, on the branch. Up to then what it has is as it was.
func (c *capture) takeOver(ctx context.Context, saver vmm.Saver, overlay string) error {
	var err error
	if c.saved, c.memory, err = saver.Save(ctx, vmm.Dest{Dir: c.dir, Hasty: true}); err != nil {
		return err
	}
	if err := c.g.overlay(overlay, c.size, c.layers); err != nil {
		return err
	}
	c.undo, c.moved = nil, true
	if err := sweepTops(filepath.Dir(overlay), c.branch); err != nil {
		c.g.log.WarnContext(ctx, "remove the former disk", logattr.Err(err))
	}
	return nil
}

// copyMemory puts a copy in the place of memory that the source's machine holds, where that is
// little, and reports whether it has. Whatever is wrong with the copy, there is another way.
func (c *capture) copyMemory(ctx context.Context) bool {
	copier, ok := c.memory.(vmm.MemoryCopier)
	if !ok {
		return false
	}
	dup, err := copier.Copy(ctx, c.g.copyLimit)
	if err != nil {
		c.g.log.WarnContext(ctx, "copy memory", logattr.Err(err))
	}
	if err != nil || dup == nil {
		return false
	}
	_ = c.memory.Close() // memory without a name: the machine has its own hold on it
	c.memory = dup
	return true
}

// takeFiles takes what an instance without a machine has.
func (c *capture) takeFiles() error {
	if !c.g.Saved(c.source) {
		c.cold = true
		return nil
	}
	dir := filepath.Join(c.g.home.Instance(string(c.source)), savedDir)
	var m manifest
	if err := readManifest(dir, &m); err != nil {
		return err
	}
	c.image, c.tools, c.saved = m.Image, m.Tools, m.Saved.In(c.dir)
	for _, f := range []vmm.File{c.saved.State, c.saved.Memory} {
		if f.Path == "" {
			continue
		}
		if err := os.Link(filepath.Join(dir, filepath.Base(f.Path)), f.Path); err != nil {
			return rootfs.DiskFull(err)
		}
	}
	return nil
}

// Onward implements instance.Capture.
func (c *capture) Onward() instance.Plan {
	recipe := c.recipe
	recipe.ID, recipe.Dir = string(c.source), c.g.Dir(c.source)
	recipe.Disks = c.g.disks(c.base, c.g.device(c.g.home.Instance(string(c.source)), c.branch), c.tools)
	return instance.Plan{Kind: instance.Wake, Recipe: recipe, Source: vmm.Restore{Saved: c.saved, Memory: c.memory}}
}

// Ready implements instance.Capture.
func (c *capture) Ready(ctx context.Context) error {
	if err := c.compact(ctx); err != nil {
		return err
	}
	if c.cold || c.memory != nil || c.useless != nil {
		return nil //nolint:nilerr // without its memory copies boot
	}
	var err error
	if c.saved.Whole {
		err = c.materialize(ctx)
	} else {
		c.memory, err = c.g.driver.(vmm.MemoryLoader).LoadMemory(ctx, c.saved)
	}
	if err != nil {
		return fmt.Errorf("prepare the memory of %s: %w", c.source, err)
	}
	return nil
}

// materialize makes memory that clones can share of a state that holds it all: a machine is
// loaded with it, and saved without having run.
func (c *capture) materialize(ctx context.Context) error {
	whole := c.saved
	recipe := c.recipe
	recipe.ID, recipe.Dir = string(c.id), filepath.Join(c.dir, "vmm")
	scratch := filepath.Join(c.dir, InstanceDisk) // nothing is written to it
	recipe.Disks = c.g.disks(c.base, vmm.Disk{
		Name: InstanceDisk, Path: scratch, Format: vmm.QCOW2, Backing: c.g.backing(c.layers),
	}, c.tools)
	into := filepath.Join(c.dir, "shared")
	err := errors.Join(c.g.overlay(scratch, c.size, c.layers), os.Mkdir(recipe.Dir, 0o700), os.Mkdir(into, 0o700))
	if err != nil {
		return rootfs.DiskFull(err)
	}
	m, err := c.g.driver.Start(ctx, recipe, vmm.Restore{Saved: whole})
	if err != nil {
		return err
	}
	saved, memory, err := m.(vmm.Saver).Save(ctx, vmm.Dest{Dir: into})
	killing, stop := context.WithTimeout(context.WithoutCancel(ctx), killTimeout)
	defer stop()
	err = errors.Join(err, m.Kill(killing))
	if err == nil {
		c.saved, c.memory = saved, memory
		return errors.Join(os.RemoveAll(recipe.Dir), os.Remove(scratch), os.Remove(whole.State.Path))
	}
	if memory != nil {
		err = errors.Join(err, memory.Close())
	}
	return err
}

// Cold implements instance.Capture.
func (c *capture) Cold() bool { return c.cold }

// Lay implements instance.Capture.
func (c *capture) Lay(_ context.Context, id instance.ID) error {
	dir, err := c.g.folder(id)
	if err != nil {
		return err
	}
	if len(c.layers) == 0 {
		return nil // Prepare makes a fresh disk
	}
	if err := os.MkdirAll(c.g.Dir(id), 0o700); err != nil {
		return rootfs.DiskFull(err)
	}
	before, err := loadDisk(dir)
	if err != nil {
		return err
	}
	now := disk{Top: before.successor(), Format: vmm.QCOW2, Size: c.size, Layers: c.layers}
	if err := os.RemoveAll(filepath.Join(dir, now.Top)); err != nil {
		return err
	}
	if err := errors.Join(c.g.overlay(filepath.Join(dir, now.Top), c.size, c.layers), now.store(dir)); err != nil {
		return err
	}
	return sweepTops(dir, now)
}

// Start implements instance.Capture.
func (c *capture) Start(ctx context.Context, id instance.ID, spec instance.Spec, magic guestproto.Magic) (instance.Plan, error) {
	if c.cold {
		return c.g.Prepare(ctx, id, spec, magic, false)
	}
	plan := instance.Plan{Kind: instance.Fork}
	if c.useless != nil {
		return plan, c.useless
	}
	img, err := c.g.image(spec)
	if err != nil {
		return plan, err
	}
	if img.Digest != c.image {
		return plan, fmt.Errorf("%w: its image was replaced", vmm.ErrStale)
	}
	if !c.g.tools.has(c.tools) {
		return plan, fmt.Errorf("%w: the programs that it had are gone", vmm.ErrStale)
	}
	dir := c.g.home.Instance(string(id))
	d, err := loadDisk(dir)
	if err != nil {
		return plan, err
	}
	if err := c.g.checkFree(); err != nil {
		return plan, err
	}
	if err := c.g.mark(id, c.image, c.tools); err != nil {
		return plan, err
	}
	plan.Recipe = c.recipe
	plan.Recipe.ID, plan.Recipe.Dir = string(id), c.g.Dir(id)
	plan.Recipe.Disks = c.g.disks(img.Path, c.g.device(dir, d), c.tools)
	plan.Source = vmm.Restore{Saved: c.saved, Memory: c.memory}
	return plan, nil
}

// Release implements instance.Capture.
func (c *capture) Release() {
	c.once.Do(func() {
		switch {
		case c.release != nil:
			c.release()
		case c.memory != nil:
			_ = c.memory.Close() // memory without a name: nothing is lost
		}
		if c.undo != nil {
			if err := c.undo(); err != nil { // what is recorded is as good: see disk
				c.g.log.Error("undo a capture", logattr.Err(err))
			}
		}
		if !c.kept {
			_ = os.RemoveAll(c.dir) // what is left goes with the next daemon
		}
		c.g.pins.letGo(c.layers)
		c.g.collectLater()
	})
}

// disks are those of an instance's machine.
func (g *Ground) disks(base string, own vmm.Disk, tools toolSet) []vmm.Disk {
	disks := []vmm.Disk{{Name: BaseDisk, Path: base, Format: vmm.Raw, ReadOnly: true}, own}
	if tools != "" {
		disks = append(disks, vmm.Disk{Name: ToolsDisk, Path: g.tools.path(tools), Format: vmm.Raw, ReadOnly: true})
	}
	return disks
}

func readManifest(dir string, v any) error {
	data, err := os.ReadFile(filepath.Join(dir, manifestName))
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", vmm.ErrDamaged, err)
	}
	return nil
}
