package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/xfeldman/aegisvm/internal/kernel"
	"github.com/xfeldman/aegisvm/internal/paths"
)

const testName = "test" // a package's tests, compiled

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
	for _, step := range []func(context.Context, string) error{o.buildPrograms, o.copyPrograms, o.copyHome, o.copyVMMs} {
		if err := step(ctx, root); err != nil {
			return err
		}
	}
	for _, j := range p.Jobs {
		if err := o.compile(ctx, root, j.Package); err != nil {
			return err
		}
	}
	// By the workspace, over an emulated network, it would take minutes.
	disk := filepath.Join(o.state, diskName)
	return errors.Join(os.RemoveAll(disk), build(ctx, root, "mke2fs", "-q", "-t", "ext4", "-m", "0", "-O", "^has_journal", "-d", o.payload(), disk, payloadSize))
}

// buildPrograms makes the lab's other end, and what tests would build.
func (o *outer) buildPrograms(ctx context.Context, root string) error {
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
	return nil
}

// copyHome takes the kernel and the images of the ready home along.
func (o *outer) copyHome(ctx context.Context, root string) error {
	home := paths.Home(o.payload("home"))
	if err := home.Create(); err != nil {
		return err
	}
	if _, err := kernel.CopySlim(paths.Home(o.test), home); err != nil {
		return err
	}
	return build(ctx, root, "cp", "-a", "--sparse=always", paths.Home(o.test).Images()+"/.", home.Images())
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
