package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/kernel"
	"github.com/xfeldman/aegisvm/internal/logattr"
	"github.com/xfeldman/aegisvm/internal/paths"
	"github.com/xfeldman/aegisvm/internal/rootfs"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// The names by which the guest finds its disks.
const (
	BaseDisk     = "base"  // EROFS, read-only, shared
	InstanceDisk = "disk"  // ext4, the instance's own; also its file's name
	ToolsDisk    = "tools" // EROFS, read-only, shared: see tools
)

// MinFree is how much must be free on the host's disk for a machine to start. A
// guest whose disk cannot grow fails in ways that nobody understands.
const MinFree = 256 * size.MiB

// Options is what a Ground is made of.
type Options struct {
	Home    paths.Home
	Harness string // path of the guest's PID 1
	// Tools names the programs that every VM has on its PATH, next to those of its kit. One
	// that is not on this host it does without.
	Tools []string
	// Find returns the path of a program; nil is paths.Find.
	Find   func(name string) (string, error)
	Driver vmm.Driver
	Linker instance.Linker // talks to templates
	Log    *slog.Logger
	// Networks and Workspaces give new templates what clones find mounted; nil leaves it to
	// each of them to mount it.
	Networks   instance.Networks
	Workspaces instance.Workspaces
	// Templates says whether machines may be clones of one that has booted.
	Templates bool
	// Timeout protects those who wait for a template from a guest that never comes up.
	Timeout time.Duration
}

// Ground prepares machines of one home. Its methods may be called together.
type Ground struct {
	home    paths.Home
	harness string
	driver  vmm.Driver
	linker  instance.Linker
	log     *slog.Logger
	timeout time.Duration
	settle  time.Duration // see settling

	networks   instance.Networks
	workspaces instance.Workspaces

	tools toolbox

	clones bool // where the driver can
	free   func(path string) (size.Bytes, error)
	remove func(path string) error // os.RemoveAll
	cache  cache
	quota  size.Bytes // of templates on the disk
	// copyLimit is how much memory of a machine that is captured is copied.
	copyLimit size.Bytes
	work      sync.WaitGroup // in the background
	pins      pins
	names     names // of snapshots

	mu     sync.Mutex
	initrd string // the initramfs for kernel, or ""
	kernel string // digest of the kernel that initrd is for
}

var (
	_ instance.Ground  = (*Ground)(nil)
	_ instance.Archive = (*Ground)(nil)
)

// NewGround returns a Ground. It does no I/O: what set-up has not provided yet is an
// error of Prepare.
func NewGround(o Options) *Ground {
	return &Ground{
		home: o.Home, harness: o.Harness, driver: o.Driver, linker: o.Linker, log: o.Log, timeout: o.Timeout, settle: settling,
		tools: newToolbox(o), networks: o.Networks, workspaces: o.Workspaces, clones: o.Templates, quota: maxTemplates, copyLimit: maxCopy,
		free: rootfs.FreeSpace, remove: os.RemoveAll, cache: cache{entries: map[string]*entry{}}, pins: pins{count: map[string]int{}},
	}
}

// Prepare implements instance.Ground. Nothing is synced: an instance that is not
// there after a crash of the host is as good as one that is empty.
func (g *Ground) Prepare(ctx context.Context, id instance.ID, spec instance.Spec, magic guestproto.Magic, cold bool) (instance.Plan, error) {
	plan, err := g.plan(ctx, id, spec, magic, cold)
	if err != nil {
		return plan, fmt.Errorf("prepare a machine: %w", err)
	}
	return plan, nil
}

func (g *Ground) plan(ctx context.Context, id instance.ID, spec instance.Spec, magic guestproto.Magic, cold bool) (instance.Plan, error) {
	k, initrd, err := g.boot(ctx)
	if err != nil {
		return instance.Plan{}, err
	}
	img, err := g.image(spec)
	if err != nil {
		return instance.Plan{}, err
	}
	if !cold && g.Saved(id) { // it may have been captured often, and not stopped in between
		if err := g.Tidy(ctx, id); err != nil {
			g.log.WarnContext(ctx, "tidy", logattr.Instance(id), logattr.Err(err))
		}
	}
	l, err := g.layOut(id)
	if err != nil {
		return instance.Plan{}, err
	}
	recipe := vmm.Spec{
		ID: string(id), Dir: g.Dir(id), Memory: steps(spec.Memory), VCPUs: spec.VCPUs,
		Kernel: k.Image, Initrd: initrd, Cmdline: guestArgs(magic),
		Network: true,
	}
	if !cold && g.Saved(id) {
		return g.wake(id, recipe, img, l.device)
	}
	tools, err := g.tools.ensure(ctx, spec.Kit.Programs)
	if err != nil {
		l.undo()
		return instance.Plan{}, err
	}
	recipe.Disks = g.disks(img.Path, l.device, tools)
	plan := instance.Plan{Kind: instance.Cold, Recipe: recipe, Source: vmm.Boot{}}
	err = g.mark(id, img.Digest, tools)
	if !cold && g.clones && g.driver.Info().Abilities.Save {
		plan.Kind = instance.Clone
		if err == nil {
			err = g.clone(ctx, &plan, l, spec.Disk, g.templateKey(recipe, img, k.Digest, tools, l.fresh))
		}
	} else if err == nil && l.fresh {
		err = l.makeDisk(func(path string) error { return rootfs.CreateDisk(g.home, path, spec.Disk) })
	}
	if err != nil {
		l.undo()
	}
	return plan, err
}

// guestArgs returns the arguments of PID 1.
func guestArgs(magic guestproto.Magic) string {
	return guestproto.MagicArg + "=" + magic.String() + " " + guestproto.RuntimeArg
}

// memoryStep is what memory comes in, so that machines of about the same size are
// clones of one template.
const memoryStep = 256 * size.MiB

func steps(n size.Bytes) size.Bytes { return (n + memoryStep - 1) / memoryStep * memoryStep }

// boot returns the kernel and the initramfs. Both are looked at each time: set-up
// may have replaced them under a running daemon.
func (g *Ground) boot(ctx context.Context) (kernel.Kernel, string, error) {
	k, err := kernel.Installed(g.home)
	if err != nil {
		return kernel.Kernel{}, "", err
	}
	g.mu.Lock()
	initrd, known := g.initrd, g.kernel == k.Digest
	g.mu.Unlock()
	if known {
		if _, err := os.Stat(initrd); err == nil {
			return k, initrd, nil
		}
	}
	if initrd, err = kernel.EnsureInitrd(ctx, g.home, g.harness); err != nil {
		return kernel.Kernel{}, "", rootfs.DiskFull(err)
	}
	g.mu.Lock()
	g.initrd, g.kernel = initrd, k.Digest
	g.mu.Unlock()
	return k, initrd, nil
}

var imageName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]*$`)

// image returns the root file system of an instance: that of the image it was made of,
// or, of one that knows none, the image of set-up.
func (g *Ground) image(spec instance.Spec) (rootfs.Image, error) {
	if spec.Base.Root != "" {
		return rootfs.LoadRoot(g.home, spec.Base.Root)
	}
	name := spec.Image
	if name == "" {
		name = rootfs.BaseImage
	}
	if !imageName.MatchString(name) {
		return rootfs.Image{}, fault.New(fault.NotFound, "image %q is not here", name)
	}
	return rootfs.LoadImage(g.home, name)
}

// DiskUse implements instance.Ground.
func (g *Ground) DiskUse(id instance.ID) (size.Bytes, error) {
	dir, err := g.folder(id)
	if err != nil {
		return 0, err
	}
	total, err := occupied(dir)
	if err != nil {
		return 0, fmt.Errorf("measure the files of %s: %w", id, err)
	}
	return total, nil
}

// occupied returns what the files below dir take. It counts blocks: they are sparse.
func occupied(dir string) (size.Bytes, error) {
	var total size.Bytes
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		if err == nil {
			total += rootfs.Occupied(fi)
		}
		return err
	})
	return total, err
}

// Clear implements instance.Ground.
func (g *Ground) Clear(id instance.ID) error {
	dir, err := g.folder(id)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove files of %s: %w", id, err)
	}
	g.collectLater()
	return nil
}

// Dir implements instance.Ground. The machine's folder is within the instance's:
// it may belong to the VMM's own user, who must not be able to put a link in the
// place of the instance's disk or log.
func (g *Ground) Dir(id instance.ID) string {
	return filepath.Join(g.home.Instance(string(id)), "vmm")
}

// Leftovers implements instance.Ground.
func (g *Ground) Leftovers() ([]instance.ID, error) {
	entries, err := os.ReadDir(g.home.Instances())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list instances: %w", err)
	}
	var ids []instance.ID
	for _, e := range entries {
		if id := instance.ID(e.Name()); e.IsDir() && idForm.MatchString(e.Name()) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

var idForm = regexp.MustCompile(`^inst-[0-9a-z]+$`)

// folder returns the folder of an instance. An id that is no id never becomes a
// path: what is below it is going to be removed.
func (g *Ground) folder(id instance.ID) (string, error) {
	if !idForm.MatchString(string(id)) {
		return "", fault.New(fault.Internal, "%q is not the id of an instance", id)
	}
	return g.home.Instance(string(id)), nil
}
