package kernel

import (
	"cmp"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/xfeldman/aegisvm/internal/apt"
	"github.com/xfeldman/aegisvm/internal/atomicfile"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/paths"
)

// Options says where Ensure looks for a kernel. The zero value of a field is the
// usual place.
type Options struct {
	Home     paths.Home
	Cache    string       // folder from which a finished kernel is taken, and into which one is put; "" is none
	Progress func(string) // told what is going on, one line each; nil is nobody

	// Extra names modules that the kernel must have and its machines load, next to what
	// all machines do. It is a property of a home: an installed kernel is taken to have it.
	Extra []string

	HostRoot string // where /boot and /lib/modules are, "/" by default
	Release  string // of the host's own kernel, as uname -r says; "" asks the host
	Distro   apt.Distro
	Sources  []apt.Source // of packages

	// Arch is that of the machines, as Go names it; "" is this host's own. Of another one
	// only the archive has a kernel.
	Arch string
}

func (o *Options) arch() string { return cmp.Or(o.Arch, runtime.GOARCH) }

func (o *Options) progress(format string, args ...any) {
	if o.Progress != nil {
		o.Progress(fmt.Sprintf(format, args...))
	}
}

// Ensure returns the kernel of the home, after finding one where there is none: in
// the cache, on the host, in the distribution's archive. A context that ends leaves
// nothing that is taken for a kernel. One Ensure at a time works on a home.
func Ensure(ctx context.Context, o Options) (Kernel, error) {
	if k, err := read(o.Home.Kernel(), o.arch()); err == nil {
		return k, nil
	}
	if err := os.MkdirAll(o.Home.Kernel(), 0o700); err != nil {
		return Kernel{}, err
	}
	if o.Cache != "" {
		k, err := take(o.Cache, o.Home.Kernel(), o.arch())
		if err == nil {
			o.progress("kernel %s taken from %s", k.Version, o.Cache)
			return k, nil
		}
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			return Kernel{}, err // another way needs as much
		}
		if !errors.Is(err, fs.ErrNotExist) {
			o.progress("kernel in %s not used: %v", o.Cache, err)
		}
	}
	staged, err := os.MkdirTemp(o.Home.Kernel(), atomicfile.Prefix+"kernel-*")
	if err != nil {
		return Kernel{}, err
	}
	defer func() { _ = os.RemoveAll(staged) }() // gone already when all went well
	k, err := o.fromHost(staged)
	if err != nil {
		o.progress("the host's own kernel cannot be used: %v", err)
		if k, err = o.fromArchive(ctx, staged); err != nil {
			return Kernel{}, err
		}
	}
	k.Arch, k.Extra = o.arch(), strings.Join(o.Extra, " ")
	if k, err = install(o.Home.Kernel(), staged, k); err != nil {
		return Kernel{}, err
	}
	if o.Cache != "" {
		if err := put(k, o.Cache); err != nil {
			o.progress("kernel not kept in %s: %v", o.Cache, err)
		}
	}
	return k, nil
}

// fromHost makes a kernel in dir of what the host itself runs. Only the modules
// that machines load are copied: a host has several times more than that.
func (o *Options) fromHost(dir string) (Kernel, error) {
	if o.arch() != runtime.GOARCH {
		return Kernel{}, fmt.Errorf("it is for %s", runtime.GOARCH)
	}
	root, release := o.HostRoot, o.Release
	if root == "" {
		root = "/"
	}
	if release == "" {
		var err error
		if release, err = hostRelease(); err != nil {
			return Kernel{}, err
		}
	}
	modules := filepath.Join(root, "lib", "modules", release)
	if err := check(modules, o.Extra); err != nil {
		return Kernel{}, err
	}
	if err := writeImage(filepath.Join(root, "boot", "vmlinuz-"+release), filepath.Join(dir, imageName), o.arch()); err != nil {
		return Kernel{}, err
	}
	if err := copyClosure(modules, filepath.Join(dir, modulesName), o.Extra); err != nil {
		return Kernel{}, err
	}
	return Kernel{Version: release, Source: "the host's own kernel"}, nil
}

// fromArchive fetches the distribution's kernel for virtual machines into dir.
func (o *Options) fromArchive(ctx context.Context, dir string) (Kernel, error) {
	o.progress("fetching a kernel from the package archive of %s", o.Distro)
	tree, packages, err := fetchPackages(ctx, o, filepath.Join(dir, "fetch"))
	if err != nil {
		return Kernel{}, fault.Wrap(fault.Unavailable, err, "fetch a kernel").By(fault.Host).
			WithHint("check the network and the host's apt sources, then run: aegis setup")
	}
	release, err := releaseIn(tree)
	if err != nil {
		return Kernel{}, err
	}
	o.progress("unpacking kernel %s", release)
	if err := writeImage(filepath.Join(tree, "boot", "vmlinuz-"+release), filepath.Join(dir, imageName), o.arch()); err != nil {
		return Kernel{}, err
	}
	if err := o.keepModules(modulesIn(tree, release), filepath.Join(dir, modulesName)); err != nil {
		return Kernel{}, err
	}
	if err := os.RemoveAll(filepath.Join(dir, "fetch")); err != nil {
		return Kernel{}, err
	}
	return Kernel{Version: release, Source: fmt.Sprintf("package %s of %s", packages[0], o.Distro)}, nil
}

// keepModules makes the folder dst of an unpacked one. With modules of its own choice the
// kernel is one for all purposes, with several times more than machines load.
func (o *Options) keepModules(src, dst string) error {
	if len(o.Extra) > 0 {
		return copyClosure(src, dst, o.Extra)
	}
	return os.Rename(src, dst)
}

// writeImage writes the uncompressed form of the kernel in src to dst.
func writeImage(src, dst, arch string) error {
	data, err := os.ReadFile(src)
	if err != nil {
		return err
	}
	image, err := extract(data, arch)
	if err == nil && arch == "amd64" {
		err = checkPVH(image)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", src, err)
	}
	return os.WriteFile(dst, image, 0o444) //nolint:gosec // VMMs of another user read it; the home is private
}

// checkPVH says whether an amd64 image can be started directly: it carries a note
// of type 18 (XEN_ELFNOTE_PHYS32_ENTRY) of the owner "Xen".
func checkPVH(image []byte) error {
	f, err := elf.NewFile(newReaderAt(image))
	if err != nil {
		return err
	}
	for _, p := range f.Progs {
		if p.Type != elf.PT_NOTE {
			continue
		}
		notes := make([]byte, p.Filesz)
		if _, err := p.ReadAt(notes, 0); err != nil {
			return err
		}
		if hasNote(notes, "Xen\x00", 18) {
			return nil
		}
	}
	return errors.New("the kernel is built without CONFIG_PVH")
}
