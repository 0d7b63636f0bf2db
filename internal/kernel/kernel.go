package kernel

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/xfeldman/aegisvm/internal/atomicfile"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/paths"
)

// Kernel is a kernel that machines of a home boot.
type Kernel struct {
	Version string `json:"version"` // as uname -r says
	Arch    string `json:"arch"`    // as Go names it
	Source  string `json:"source"`  // where it came from, for people
	Size    int64  `json:"size"`    // of the image, in bytes
	Digest  string `json:"digest"`  // over image and modules
	// Extra names the modules that its machines load next to what all machines do,
	// separated by spaces.
	Extra   string `json:"extra,omitempty"`
	Image   string `json:"-"` // path of the uncompressed image: ELF, or Image on arm64
	Modules string `json:"-"` // folder of the modules, laid out like /lib/modules/<version>
}

// A kernel lives in <kernel folder>/<version>. This file names the one in use; it
// is written last, so that a kernel with it is whole.
const (
	descriptionName = "kernel.json"
	imageName       = "vmlinux"
	modulesName     = "modules"
)

// Installed returns the kernel of this home. It does not look anywhere else.
func Installed(home paths.Home) (Kernel, error) {
	k, err := read(home.Kernel(), runtime.GOARCH)
	if err != nil {
		return Kernel{}, fault.Wrap(fault.Unavailable, err, "there is no kernel for machines").By(fault.Host).WithHint("run: aegis setup")
	}
	return k, nil
}

// read returns the kernel that the description in dir names, if it is of that architecture.
func read(dir, arch string) (Kernel, error) {
	data, err := os.ReadFile(filepath.Join(dir, descriptionName))
	if err != nil {
		return Kernel{}, err
	}
	k := Kernel{}
	if err := json.Unmarshal(data, &k); err != nil {
		return Kernel{}, fmt.Errorf("read description of the kernel: %w", err)
	}
	if !filepath.IsLocal(k.Version) || filepath.Base(k.Version) != k.Version {
		return Kernel{}, fmt.Errorf("description of the kernel: bad version %q", k.Version)
	}
	k.locate(filepath.Join(dir, k.Version))
	fi, err := os.Stat(k.Image)
	if err != nil {
		return Kernel{}, err
	}
	if fi.Size() != k.Size || k.Arch != arch {
		return Kernel{}, fmt.Errorf("%s has %d bytes for %s, the description says %d for %s",
			k.Image, fi.Size(), arch, k.Size, k.Arch)
	}
	if _, err := os.Stat(filepath.Join(k.Modules, "modules.builtin")); err != nil {
		return Kernel{}, err
	}
	return k, nil
}

func (k *Kernel) locate(dir string) {
	k.Image, k.Modules = filepath.Join(dir, imageName), filepath.Join(dir, modulesName)
}

// install moves the finished folder staged to its place in dir and makes it the
// kernel in use. Kernels of other versions are removed: what runs has read its own.
func install(dir, staged string, k Kernel) (Kernel, error) {
	digest, err := digestTree(staged)
	if err != nil {
		return Kernel{}, err
	}
	k.Digest = digest
	fi, err := os.Stat(filepath.Join(staged, imageName))
	if err != nil {
		return Kernel{}, err
	}
	k.Size = fi.Size()
	final := filepath.Join(dir, k.Version)
	// Without its description the old kernel is none, so that nobody takes a
	// half-removed folder for it.
	if err := os.Remove(filepath.Join(dir, descriptionName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Kernel{}, err
	}
	if err := os.RemoveAll(final); err != nil {
		return Kernel{}, err
	}
	if err := os.Rename(staged, final); err != nil {
		return Kernel{}, err
	}
	k.locate(final)
	data, err := json.MarshalIndent(k, "", "  ")
	if err != nil {
		return Kernel{}, err
	}
	if err := atomicfile.Write(filepath.Join(dir, descriptionName), append(data, '\n'), 0o600); err != nil {
		return Kernel{}, err
	}
	return k, removeOthers(dir, k.Version)
}

// removeOthers removes the folders of other kernels than version.
func removeOthers(dir, version string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if _, err := os.Stat(filepath.Join(dir, e.Name(), imageName)); err == nil && e.Name() != version {
			errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}
