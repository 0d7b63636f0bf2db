package machine

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/logattr"
	"github.com/xfeldman/aegisvm/internal/rootfs"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// templateKey returns the key of the template for a machine.
func (g *Ground) templateKey(recipe vmm.Spec, image rootfs.Image, kernelDigest string, tools toolSet, rooted bool) templateKey {
	info := g.driver.Info()
	return templateKey{
		Form: templateForm, Image: image.Digest, Memory: recipe.Memory, VCPUs: recipe.VCPUs,
		Kernel: kernelDigest, Initrd: filepath.Base(recipe.Initrd), Driver: info.Name, VMM: info.Identity, Tools: string(tools), Rooted: rooted,
	}
}

// template returns the template of that key. Where there is none, it makes one of a machine
// like recipe.
func (g *Ground) template(ctx context.Context, key templateKey, recipe vmm.Spec) (*lease, error) {
	name := key.name()
	return g.cache.use(ctx, name, func() (*template, error) {
		ctx := context.WithoutCancel(ctx)
		t, err := g.load(ctx, name)
		if err == nil {
			return t, nil
		}
		return g.make(ctx, key, recipe)
	})
}

// Warm implements instance.Warmer.
func (g *Ground) Warm(ctx context.Context, spec instance.Spec) error {
	if !g.clones || !g.driver.Info().Abilities.Save {
		return fault.New(fault.Conflict, "nothing can be made in advance: every start boots here").
			WithHint("see the setting templates, and: aegis doctor")
	}
	k, initrd, err := g.boot(ctx)
	if err != nil {
		return err
	}
	img, err := g.image(spec)
	if err != nil {
		return err
	}
	tools, err := g.tools.ensure(ctx, spec.Kit.Programs)
	if err != nil {
		return err
	}
	if err := g.checkFree(); err != nil {
		return err
	}
	recipe := vmm.Spec{Memory: steps(spec.Memory), VCPUs: spec.VCPUs, Kernel: k.Image, Initrd: initrd, Network: true}
	recipe.Disks = g.disks(img.Path, vmm.Disk{Name: InstanceDisk}, tools)
	t, err := g.template(ctx, g.templateKey(recipe, img, k.Digest, tools, true), recipe)
	if err != nil {
		return err
	}
	t.release()
	return nil
}

// clone plans a start as a clone of the machine's template. Where the machine has no disk
// yet, it gets a copy of the template's.
func (g *Ground) clone(ctx context.Context, plan *instance.Plan, l *layout, disk size.Bytes, key templateKey) error {
	t, err := g.template(ctx, key, plan.Recipe)
	if err != nil {
		return err
	}
	if key.Rooted {
		err = l.makeDisk(func(path string) error { return t.copyDisk(ctx, path, disk) })
	}
	if err != nil {
		g.failed(ctx, t, err)
		t.release()
		return err
	}
	plan.Source = vmm.Restore{Saved: t.saved, Memory: t.memory}
	plan.Magic, plan.Release = t.magic, t.release
	plan.Failed = func(err error) { g.failed(ctx, t, err) }
	return nil
}

// failed is told that no machine could be started from a template. One that is damaged, or
// that the VMM refuses, is dropped: the next start makes another.
func (g *Ground) failed(ctx context.Context, t *lease, err error) {
	if !errors.Is(err, vmm.ErrDamaged) && !errors.Is(err, vmm.ErrStale) {
		return
	}
	gone := t.spoil()
	if gone == nil {
		return
	}
	ctx = context.WithoutCancel(ctx)
	g.log.WarnContext(ctx, "template dropped", logattr.Template(t.name), logattr.Err(err))
	kept := t.kept
	g.work.Go(func() {
		defer gone()
		if kept != nil {
			<-kept // it is still being written
		}
		// Without its manifest it is nothing. The rest goes when another is made in its place.
		err := os.Remove(filepath.Join(g.templates(), t.name, manifestName))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			g.log.ErrorContext(ctx, "drop template", logattr.Template(t.name), logattr.Err(err))
		}
	})
}
