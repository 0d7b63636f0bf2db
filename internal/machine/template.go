package machine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/logattr"
	"github.com/xfeldman/aegisvm/internal/rootfs"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// templateKey is what machines must have in common to be clones of one template. The
// size of the disk is not in it: disks grow.
type templateKey struct {
	Form   int    // of templates
	Image  string // digest
	Memory size.Bytes
	VCPUs  int
	Kernel string // digest
	Initrd string // name, which has the digests of harness and modules in it
	Driver string
	VMM    string // vmm.Info.Identity
	// Tools is the disk of programs that the template has mounted, or "".
	Tools string `json:",omitempty"`
	// Rooted says that the template has a new disk mounted, and the root file system on it.
	// Its clones have a copy of that disk. A template that is not has seen no disk: its
	// clones are instances whose disk has something on it.
	Rooted bool
}

// templateForm changes whenever the harness or the recipe of templates do in a way that
// nothing else in the key shows.
const templateForm = 2

// name is the template's folder.
func (k templateKey) name() string {
	b, _ := json.Marshal(k) // of strings and numbers; cannot fail
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// templateManifest describes a template on disk.
type templateManifest struct {
	Form  int              `json:"form"`
	Made  time.Time        `json:"made"`
	Magic guestproto.Magic `json:"magic"` // opens the link to a clone, once
	Saved vmm.Saved        `json:"saved"`
	Disk  vmm.File         `json:"disk"` // see template
	Key   templateKey      `json:"key"`  // for people
}

// template is a machine that has booted an image and runs nothing yet, held in this
// process's memory.
type template struct {
	saved  vmm.Saved
	magic  guestproto.Magic
	memory vmm.Memory
	disk   vmm.File        // what its disk holds, an image of package ram; the zero File if it has seen none
	kept   <-chan struct{} // closed when it has been written to disk, or could not be; nil if it came from there
}

// isKept reports whether nobody needs the memory to write it.
func (t *template) isKept() bool {
	if t.kept == nil {
		return true
	}
	select {
	case <-t.kept:
		return true
	default:
		return false
	}
}

func (g *Ground) templates() string { return g.home.Templates() }

// load reads a template from disk.
func (g *Ground) load(ctx context.Context, name string) (*template, error) {
	dir := filepath.Join(g.templates(), name)
	path := filepath.Join(dir, manifestName)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var m templateManifest
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	loader, ok := g.driver.(vmm.MemoryLoader)
	if !ok || m.Form != templateForm {
		return nil, fmt.Errorf("%s: %w", path, vmm.ErrStale)
	}
	t := &template{saved: m.Saved.In(dir), magic: m.Magic, disk: m.Disk}
	if t.disk.Path != "" {
		t.disk.Path = filepath.Join(dir, filepath.Base(t.disk.Path))
	}
	if _, err := os.Stat(t.saved.State.Path); err != nil {
		return nil, fmt.Errorf("load template %s: %w: %w", name, vmm.ErrDamaged, err)
	}
	if t.memory, err = loader.LoadMemory(ctx, t.saved); err != nil {
		return nil, fmt.Errorf("load template %s: %w", name, err)
	}
	now := time.Now()
	_ = os.Chtimes(path, now, now) // when it was used last, for the quota
	return t, nil
}

// make boots a template and saves it. It can be cloned when make returns; the rest of
// its files is written in the background, the manifest last.
func (g *Ground) make(ctx context.Context, key templateKey, recipe vmm.Spec) (*template, error) {
	dir := filepath.Join(g.templates(), key.name())
	// What is there could not be loaded.
	if err := g.sweep(ctx, dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, rootfs.DiskFull(err)
	}
	begin := time.Now()
	t, err := g.bootTemplate(ctx, dir, recipe, key.Rooted)
	if err != nil {
		return nil, fmt.Errorf("make a template: %w", err)
	}
	g.log.InfoContext(ctx, "template", logattr.Template(key.name()), logattr.Took(time.Since(begin)))
	kept := make(chan struct{})
	t.kept = kept
	g.work.Go(func() {
		defer close(kept)
		err := g.keep(context.WithoutCancel(ctx), dir, key, t)
		if err != nil { // it serves as long as this daemon lives; without a manifest it is nothing to a later one
			g.log.ErrorContext(ctx, "keep template", logattr.Template(key.name()), logattr.Err(err))
		}
	})
	return t, nil
}

// bootTemplate boots a machine up to where instances begin to differ, and saves its
// state into dir. After an error dir is gone, unless a machine is in it that cannot be
// killed: then it stays for Recover.
func (g *Ground) bootTemplate(ctx context.Context, dir string, recipe vmm.Spec, rooted bool) (*template, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, g.timeout, errors.New("the template was not ready in time"))
	defer cancel()
	t := &template{magic: guestproto.NewMagic()}
	disk := filepath.Join(dir, InstanceDisk)
	recipe.ID, recipe.Dir = "template-"+filepath.Base(dir), filepath.Join(dir, "vmm")
	recipe.Cmdline = guestArgs(t.magic) + " " + guestproto.TemplateArg
	recipe.Disks = slices.Clone(recipe.Disks)
	recipe.Disks[1] = vmm.Disk{Name: InstanceDisk, Path: disk, Format: vmm.Raw}
	if err := errors.Join(os.Mkdir(recipe.Dir, 0o700), g.makeTemplateDisk(disk, rooted)); err != nil {
		return nil, errors.Join(rootfs.DiskFull(err), os.RemoveAll(dir))
	}
	m, err := g.driver.Start(ctx, recipe, vmm.Boot{})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	err = g.prepare(ctx, m, t.magic, rooted)
	if err == nil {
		t.saved, t.memory, err = m.(vmm.Saver).Save(ctx, vmm.Dest{Dir: dir})
	}
	killing, stop := context.WithTimeout(context.WithoutCancel(ctx), killTimeout)
	defer stop()
	killed := m.Kill(killing)
	err = errors.Join(err, killed)
	if err == nil && rooted {
		t.disk, err = storeDisk(ctx, disk, filepath.Join(dir, diskImageName))
	}
	if killed == nil {
		err = errors.Join(err, os.RemoveAll(recipe.Dir), os.Remove(disk))
	}
	if err == nil {
		return t, nil
	}
	if t.memory != nil {
		err = errors.Join(err, t.memory.Close())
	}
	if killed == nil {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return nil, err
}

// settling is how long a guest that has become a template is left alone before it is saved.
// Its kernel puts off much of what mounts and processes that have ended leave to be done,
// and each clone would do it anew. Nothing tells when that is over.
const settling = 300 * time.Millisecond

// killTimeout protects whoever waits for a template from a VMM that cannot be killed.
const killTimeout = 20 * time.Second

// prepare waits until a template is ready, and stops it.
func (g *Ground) prepare(ctx context.Context, m vmm.Machine, magic guestproto.Magic, rooted bool) error {
	hello := guestproto.Hello{MinVersion: guestproto.MinVersion, Version: guestproto.Version, Owned: []guestproto.Owned{}, Prepare: true}
	if rooted {
		hello.DiskBytes = int64(rootfs.TemplateSize)
	}
	link, err := g.linker.Link(ctx, m, magic, hello)
	if err != nil {
		return err
	}
	stop := func() error { return nil }
	if rooted {
		stop, err = g.furnish(ctx, m, link)
	}
	// Clones begin with a guest that talks to nobody, and has nothing left to do.
	err = errors.Join(err, link.Close())
	if err == nil {
		quiet := time.NewTimer(g.settle)
		select {
		case <-quiet.C:
			err = m.Pause(ctx)
		case <-ctx.Done():
			quiet.Stop()
			err = context.Cause(ctx)
		}
	}
	return errors.Join(err, stop())
}

// keep writes a template to disk and makes it known.
func (g *Ground) keep(ctx context.Context, dir string, key templateKey, t *template) error {
	saved := t.saved
	var err error
	if saved.Memory, err = t.memory.Store(ctx, filepath.Join(dir, memoryName)); err != nil {
		return err
	}
	if err := saved.Sync(); err != nil {
		return err
	}
	if t.disk.Path != "" {
		if err := syncFile(t.disk.Path); err != nil {
			return err
		}
	}
	err = writeManifest(dir, templateManifest{Form: templateForm, Made: time.Now(), Magic: t.magic, Saved: saved, Disk: t.disk, Key: key})
	if err != nil {
		return err
	}
	return g.collect()
}
