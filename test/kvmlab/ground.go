package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/xfeldman/aegisvm/internal/apt"
	"github.com/xfeldman/aegisvm/internal/kernel"
	"github.com/xfeldman/aegisvm/internal/paths"
	"github.com/xfeldman/aegisvm/internal/rootfs"
	"github.com/xfeldman/aegisvm/internal/setup"
)

const (
	testName    = "test"          // a package's tests, compiled
	wrapperName = "qemu-with-svm" // what starts the lab's QEMU
	diskName    = "payload.img"   // the payload as the lab has it
	payloadSize = "2G"            // of which nothing is written that is not needed
)

// labModules is what the lab's kernel loads besides what all machines do: KVM, and the
// device by which VMMs have a network.
var labModules = []string{"kvm_amd", "tun"}

// labPackages make a minimal Debian a host of AegisVM and of its tests.
var labPackages = []string{
	"e2fsprogs", "iproute2", "procps", "qemu-system-x86",
}

// fill makes the share and the payload anew: what goes in is of this tree and of now.
func (o *outer) fill(ctx context.Context, root string, p *plan) error {
	if err := errors.Join(os.RemoveAll(o.share()), os.RemoveAll(o.payload())); err != nil {
		return err
	}
	for _, dir := range []string{filepath.Join(o.share(), outName), o.payload("tests"), o.payload("lib"), o.payload("built")} {
		if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // VMMs of another user reach into it
			return err
		}
	}
	b, err := json.Marshal(p)
	if err == nil {
		err = os.WriteFile(filepath.Join(o.share(), planName), b, 0o600)
	}
	if err != nil {
		return err
	}
	steps := [][]string{{"go", "build", "-trimpath", "-o", filepath.Join(o.share(), "kvmlab"), "./test/kvmlab"}}
	for _, c := range built {
		last := len(c) - 1
		file := o.payload("built", builtName(c[0], c[last]))
		steps = append(steps, slices.Concat([]string{"go"}, c[:last], []string{"-trimpath", "-ldflags=-s -w", "-o", file}, c[last:]))
	}
	for _, c := range steps {
		if err := build(ctx, root, c...); err != nil {
			return err
		}
	}
	if err := errors.Join(o.copyPrograms(ctx, root), o.copyHome(ctx, root)); err != nil {
		return err
	}
	for _, j := range p.Jobs {
		if err := o.compile(ctx, root, j.Package); err != nil {
			return err
		}
	}
	if err := o.copyVMMs(ctx, root); err != nil {
		return err
	}
	// By the workspace, over an emulated network, it would take minutes.
	disk := filepath.Join(o.state, diskName)
	return errors.Join(os.RemoveAll(disk), build(ctx, root, "mke2fs", "-q", "-t", "ext4", "-m", "0", "-O", "^has_journal", "-d", o.payload(), disk, payloadSize))
}

// copyHome takes the kernel and the images of the ready home along.
func (o *outer) copyHome(ctx context.Context, root string) error {
	home := paths.Home(o.payload("home"))
	if err := home.Create(); err != nil {
		return err
	}
	if _, err := kernel.CopySlim(paths.Home(o.ready), home); err != nil {
		return err
	}
	return build(ctx, root, "cp", "-a", "--sparse=always", paths.Home(o.ready).Images()+"/.", home.Images())
}

// labPrograms is what of AegisVM the tests start; the rest is of no use in the lab.
var labPrograms = []string{"aegis", "aegisd", "aegis-harness", "aegis-mcp-guest", "aegis-vmm-worker"}

// copyPrograms takes the programs under test along.
func (o *outer) copyPrograms(ctx context.Context, root string) error {
	dir := o.payload("bin")
	if err := os.Mkdir(dir, 0o755); err != nil { //nolint:gosec // as above
		return err
	}
	for _, name := range labPrograms {
		path := filepath.Join(o.bin, name)
		if _, err := os.Stat(path); err != nil {
			continue // this tree has no such program; a test that wants it says so
		}
		if err := build(ctx, root, "cp", "-a", path, dir); err != nil {
			return err
		}
	}
	return nil
}

// compile makes the tests of a package a program, beside the files that they read.
func (o *outer) compile(ctx context.Context, root, pkg string) error {
	dir := o.payload("tests", filepath.Base(pkg))
	if _, err := os.Stat(dir); err == nil {
		return nil // for another driver
	}
	if err := os.Mkdir(dir, 0o755); err != nil { //nolint:gosec // as above
		return err
	}
	if err := build(ctx, root, "go", "test", "-c", "-tags", "integration", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, testName), "./"+pkg); err != nil {
		return err
	}
	data := filepath.Join(root, pkg, "testdata")
	if _, err := os.Stat(data); err != nil {
		return nil //nolint:nilerr // they read none
	}
	return build(ctx, root, "cp", "-a", data, filepath.Join(dir, "testdata"))
}

// copyVMMs takes those along that are not Debian's.
func (o *outer) copyVMMs(ctx context.Context, root string) error {
	lib := o.payload("lib")
	if path := os.Getenv("AEGIS_LAB_CLOUD_HYPERVISOR"); path != "" {
		if err := build(ctx, root, "cp", "-L", path, filepath.Join(lib, "cloud-hypervisor")); err != nil {
			return err
		}
	}
	if dir := os.Getenv("AEGIS_LAB_LIBKRUN"); dir != "" {
		return build(ctx, root, "cp", "-rL", dir+"/.", lib)
	}
	return nil
}

// build runs a step of the preparation.
func build(ctx context.Context, root string, command ...string) error {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...) //nolint:gosec // of ours
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(command, " "), err, out)
	}
	return nil
}

// ground fills the lab's own home, which is set up with another kernel and image than all others.
func (o *outer) ground(ctx context.Context) error {
	home := paths.Home(o.home())
	if err := home.Create(); err != nil {
		return err
	}
	host := setup.Options{}.Host()
	options := kernel.Options{
		Home: home, Distro: host.Distro, Sources: host.Sources, Extra: labModules,
		Progress: func(line string) { say("kernel: %s\n", line) },
	}
	if host.Cache != "" {
		options.Cache = filepath.Join(host.Cache, "kernel-lab")
		if err := os.MkdirAll(options.Cache, 0o700); err != nil {
			return err
		}
	}
	k, err := kernel.Ensure(ctx, options)
	if err != nil {
		return err
	}
	say("the lab's kernel: %s, from %s\n", k.Version, k.Source)
	return errors.Join(rootfs.EnsureTemplate(ctx, home), o.wrap(ctx))
}

// wrap writes the program that the lab's daemon takes for QEMU: QEMU with SVM in its CPU.
func (o *outer) wrap(ctx context.Context) error {
	path, err := exec.LookPath(setup.QEMU().Name)
	if err != nil {
		return err
	}
	quote := func(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
	script := `#!/bin/sh
# The driver asks for all that can be emulated, "max", but QEMU does not count SVM to it. And
# it knows of no disk but the instance's.
for arg; do
	shift
	[ "$arg" = max ] && arg=max,+svm
	set -- "$@" "$arg"
done
exec ` + quote(path) + ` "$@" -drive if=none,id=payload,format=raw,readonly=on,file=` + quote(strings.ReplaceAll(filepath.Join(o.state, diskName), ",", ",,")) +
		" -device virtio-blk-device,drive=payload,serial=" + payloadSerial + "\n"
	if err := os.WriteFile(filepath.Join(o.state, wrapperName), []byte(script), 0o755); err != nil { //nolint:gosec // it is run
		return err
	}
	return ctx.Err()
}

// imageName names the lab's image by what it is made of.
func imageName(d apt.Distro) string {
	sum := sha256.Sum256([]byte(strings.Join(labPackages, " ")))
	return fmt.Sprintf("kvm-lab:%s-%s-%x", d.ID, d.Codename, sum[:4])
}

// ensureImage makes the lab's image, once: a Debian of packages, by way of an archive that
// goes when it is imported.
func (o *outer) ensureImage(ctx context.Context) (string, error) {
	host := setup.Options{}.Host()
	name := imageName(host.Distro)
	if o.has(ctx, name) {
		return name, nil
	}
	say("building the image %s of %s; this takes some minutes, once\n", name, host.Distro)
	archive := filepath.Join(o.state, "image.tar")
	defer os.Remove(archive) //nolint:errcheck // in a folder that is ours alone
	args := append([]string{
		"--quiet", "--variant=minbase", "--format=tar", "--include=" + strings.Join(labPackages, ","),
		"--aptopt=Acquire::Languages none", "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
		"--dpkgopt=path-exclude=/usr/share/doc/*", host.Distro.Codename, archive,
	}, apt.Lines(host.Sources)...)
	cmd := exec.CommandContext(ctx, "mmdebstrap", args...)
	cmd.Dir, cmd.Stderr = "/", os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = stopGrace
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("mmdebstrap: %w", err)
	}
	return name, o.aegis(ctx, "image", "import", archive, name).Run()
}

// has tells whether the lab's home has an image.
func (o *outer) has(ctx context.Context, name string) bool {
	cmd := o.aegis(ctx, "image", "inspect", name)
	cmd.Stdout, cmd.Stderr = nil, nil
	return cmd.Run() == nil
}
