package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/xfeldman/aegisvm/internal/apt"
)

// kernelPart matches the packages that together make a kernel: those that its meta
// package leads to.
var kernelPart = regexp.MustCompile(`^linux-(image|modules|binary)-[0-9]`)

// metaPackage names the package that always depends on the newest kernel for
// virtual machines or, where more modules are wanted than that of Debian has, for all.
func metaPackage(d apt.Distro, arch string, extra bool) string {
	switch {
	case d.ID == "ubuntu":
		return "linux-image-virtual"
	case extra:
		return "linux-image-" + arch
	}
	return "linux-image-cloud-" + arch
}

// fetchPackages downloads the packages of a kernel and unpacks them below dir,
// without installing anything. It returns the tree and the packages' names.
func fetchPackages(ctx context.Context, o *Options, dir string) (tree string, packages []string, err error) {
	client, err := apt.New(filepath.Join(dir, "apt"), o.Arch, o.Sources)
	if err != nil {
		return "", nil, err
	}
	if err := client.Update(ctx); err != nil {
		return "", nil, err
	}
	meta := metaPackage(o.Distro, o.arch(), len(o.Extra) > 0)
	if packages, err = client.Closure(ctx, meta, kernelPart); err != nil {
		return "", nil, err
	}
	if len(packages) == 0 {
		return "", nil, fmt.Errorf("package %s leads to no kernel", meta)
	}
	tree = filepath.Join(dir, "tree")
	o.progress("downloading %s", packages[0])
	if err := unpack(ctx, client, tree, packages); err != nil {
		return "", nil, err
	}
	release, err := releaseIn(tree)
	if err != nil {
		return "", nil, err
	}
	err = check(modulesIn(tree, release), o.Extra)
	if _, missing := errors.AsType[*missingModuleError](err); missing {
		// Ubuntu keeps the less common modules in a package of their own.
		extra := "linux-modules-extra-" + release
		o.progress("downloading %s", extra)
		if unpackErr := unpack(ctx, client, tree, []string{extra}); unpackErr != nil {
			return "", nil, errors.Join(err, unpackErr)
		}
		err = check(modulesIn(tree, release), o.Extra)
	}
	return tree, packages, err
}

func unpack(ctx context.Context, client *apt.Client, tree string, packages []string) error {
	files, err := client.Download(ctx, packages...)
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := apt.Unpack(ctx, f, tree); err != nil {
			return err
		}
	}
	return nil
}

// releaseIn returns the version of the one kernel in an unpacked tree.
func releaseIn(tree string) (string, error) {
	images, err := filepath.Glob(filepath.Join(tree, "boot", "vmlinuz-*"))
	if err != nil {
		return "", err
	}
	if len(images) != 1 {
		return "", fmt.Errorf("the packages hold %d kernels, want one", len(images))
	}
	return filepath.Base(images[0])[len("vmlinuz-"):], nil
}

// modulesIn returns the folder of modules in an unpacked tree, wherever the
// distribution has it.
func modulesIn(tree, release string) string {
	places := []string{filepath.Join(tree, "lib", "modules", release), filepath.Join(tree, "usr", "lib", "modules", release)}
	i := slices.IndexFunc(places, func(p string) bool {
		_, err := os.Stat(p)
		return err == nil
	})
	return places[max(i, 0)]
}
