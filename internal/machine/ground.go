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
	"github.com/xfeldman/aegisvm/internal/paths"
	"github.com/xfeldman/aegisvm/internal/rootfs"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// The names by which the guest finds its disks.
const (
	BaseDisk     = "base" // EROFS, read-only, shared
	InstanceDisk = "disk" // ext4, the instance's own; also its file's name
)

// MinFree is how much must be free on the host's disk for a machine to start. A
// guest whose disk cannot grow fails in ways that nobody understands.
const MinFree = 256 * size.MiB

// Options is what a Ground is made of.
type Options struct {
	Home    paths.Home
	Harness string // path of the guest's PID 1
	Driver  vmm.Driver
	Linker  instance.Linker // talks to templates
	Log     *slog.Logger
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
	clones  bool // where the driver can
	free    func(path string) (size.Bytes, error)
	cache   cache
	quota   size.Bytes     // of templates on the disk
	work    sync.WaitGroup // in the background

	mu     sync.Mutex
	initrd string // the initramfs for kernel, or ""
	kernel string // digest of the kernel that initrd is for
}

var _ instance.Ground = (*Ground)(nil)

// NewGround returns a Ground. It does no I/O: what set-up has not provided yet is an
// error of Prepare.
func NewGround(o Options) *Ground {
	return &Ground{
		home: o.Home, harness: o.Harness, driver: o.Driver, linker: o.Linker, log: o.Log, timeout: o.Timeout,
		clones: o.Templates, quota: maxTemplates,
		free: rootfs.FreeSpace, cache: cache{entries: map[string]*entry{}},
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
	disk, err := g.layOut(id, spec.Disk)
	if err != nil {
		return instance.Plan{}, err
	}
	recipe := vmm.Spec{
		ID: string(id), Dir: g.Dir(id), Memory: steps(spec.Memory), VCPUs: spec.VCPUs,
		Kernel: k.Image, Initrd: initrd, Cmdline: guestproto.MagicArg + "=" + magic.String(),
		Disks: []vmm.Disk{
			{Name: BaseDisk, Path: img.Path, Format: vmm.Raw, ReadOnly: true},
			{Name: InstanceDisk, Path: disk, Format: vmm.Raw},
		},
		Network: true,
	}
	if !cold && g.Saved(id) {
		return g.wake(id, recipe, img.Digest)
	}
	if err := g.mark(id, img.Digest); err != nil {
		return instance.Plan{}, err
	}
	if !cold && g.clones && g.driver.Info().Abilities.Save {
		return g.clone(ctx, recipe, img, k.Digest)
	}
	return instance.Plan{Kind: instance.Cold, Recipe: recipe, Source: vmm.Boot{}}, nil
}

// memoryStep is what memory comes in, so that machines of about the same size are
// clones of one template.
const memoryStep = 256 * size.MiB

func steps(n size.Bytes) size.Bytes { return (n + memoryStep - 1) / memoryStep * memoryStep }

// layOut makes what is missing of an instance's folder, and returns the path of its
// disk.
func (g *Ground) layOut(id instance.ID, want size.Bytes) (string, error) {
	dir, err := g.folder(id)
	if err != nil {
		return "", err
	}
	disk := filepath.Join(dir, InstanceDisk)
	if err := g.makeFolder(dir, disk, want); err != nil {
		return "", err
	}
	if err := os.Mkdir(g.Dir(id), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", rootfs.DiskFull(err)
	}
	return disk, nil
}

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

// makeFolder makes what is missing of an instance's folder and its disk. After an
// error nothing is left that was not there before.
func (g *Ground) makeFolder(dir, disk string, want size.Bytes) error {
	free, err := g.free(g.home.Instances())
	if err != nil {
		return fmt.Errorf("measure free space: %w", err)
	}
	if free < MinFree {
		return fault.New(fault.Exhausted, "only %v are free on the disk of %s", free, g.home.Data()).By(fault.Host).
			WithHint("free some space: a machine needs %v to start", MinFree)
	}
	if _, err := os.Stat(disk); err == nil {
		return nil
	}
	err = os.Mkdir(dir, 0o700)
	made := err == nil
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return rootfs.DiskFull(err)
	}
	// Under another name until it is whole: a disk that exists is never made again.
	part := disk + ".part"
	if err := os.RemoveAll(part); err != nil { // of a daemon that was killed here
		return err
	}
	err = rootfs.CreateDisk(g.home, part, want)
	if err == nil {
		err = os.Rename(part, disk)
	}
	if err != nil {
		if made {
			// The first error tells more; Leftovers lists a folder that stays.
			_ = os.RemoveAll(dir)
		}
		return err
	}
	return nil
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
