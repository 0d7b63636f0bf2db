package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/xfeldman/aegisvm/internal/apt"
	"github.com/xfeldman/aegisvm/internal/kernel"
	"github.com/xfeldman/aegisvm/internal/paths"
	"github.com/xfeldman/aegisvm/internal/rootfs"
	"github.com/xfeldman/aegisvm/internal/setup"
)

const (
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
#
# VMRUN sets a bit of a word in which another thread notes interrupts, and may so lose one. A
# timer that is set anew by each of its interrupts then never fires again, and the lab stands
# still. One that ticks by itself brings with its next tick what was lost.
for arg; do
	shift
	case $arg in
	max) arg=max,+svm ;;
	console=*) arg="$arg nohz=off highres=off" ;;
	esac
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
