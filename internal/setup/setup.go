package setup

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/xfeldman/aegisvm/internal/apt"
	"github.com/xfeldman/aegisvm/internal/atomicfile"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/kernel"
	"github.com/xfeldman/aegisvm/internal/paths"
	"github.com/xfeldman/aegisvm/internal/rootfs"
)

// CacheVariable names the folder that set-ups of several homes share.
const CacheVariable = "AEGIS_SETUP_CACHE"

// Options says what to set up and how to talk about it.
type Options struct {
	Home  paths.Home
	Out   io.Writer // told what is going on, line by line
	Cache string    // folder that keeps kernel and base image for other homes; "" is none

	// Ask puts a yes-or-no question to the person at the terminal. Nil is nobody:
	// then set-up never waits for input.
	Ask func(question string) bool

	// CloudHypervisor is what to fetch where the host has none; NeedCloudHypervisor says
	// that it is what VMs are to run on.
	CloudHypervisor     Release
	NeedCloudHypervisor bool

	// What set-up knows of the host. Host fills it in.
	UID     int
	Distro  apt.Distro
	Sources []apt.Source
	HasApt  bool
}

// Host fills in what o leaves open about the host and its environment.
func (o Options) Host() Options {
	o.UID = os.Getuid()
	o.Cache = os.Getenv(CacheVariable)
	distro, err := apt.HostDistro("/etc/os-release")
	o.HasApt = err == nil
	if err != nil {
		distro = apt.Fallback
	}
	o.Distro, o.Sources = distro, apt.HostSources("/etc/apt", distro)
	return o
}

// Run sets up the home, or finds that all is there. It returns the first thing that
// it can do nothing about. After an error, and after a kill, Run goes on from there.
func Run(ctx context.Context, o Options) error {
	r := &reporter{out: o.Out}
	s := &setup{Options: o, reporter: r}
	if s.complete() {
		r.line("everything is set up in %s", o.Home)
		return nil
	}
	if err := o.Home.Create(); err != nil {
		return rootfs.DiskFull(err)
	}
	unlock, err := s.lock(ctx, string(o.Home))
	if err != nil {
		return err
	}
	defer unlock()
	if s.complete() { // by the one we waited for
		r.line("everything is set up in %s", o.Home)
		return nil
	}
	if err := s.run(ctx); err != nil {
		return rootfs.DiskFull(err)
	}
	r.line("everything is set up in %s", o.Home)
	return nil
}

// setup is one Run.
type setup struct {
	Options
	*reporter
}

// complete tells whether there is nothing to do. It looks at the final results
// only, in microseconds.
func (s *setup) complete() bool {
	_, kernelErr := kernel.Installed(s.Home)
	_, imageErr := rootfs.LoadImage(s.Home, rootfs.BaseImage)
	_, diskErr := os.Stat(rootfs.TemplatePath(s.Home))
	return kernelErr == nil && imageErr == nil && diskErr == nil && len(s.missing()) == 0 && !s.wantsRelease()
}

func (s *setup) run(ctx context.Context) error {
	// Nobody else is at work in the home: what is unfinished was left behind.
	for _, dir := range []string{s.Home.Kernel(), s.Home.Images()} {
		if err := atomicfile.Sweep(dir); err != nil {
			return err
		}
	}
	if s.Cache != "" {
		unlock, err := s.openCache(ctx)
		if err != nil {
			return err
		}
		defer unlock()
	}
	if err := s.takeBase(); err != nil {
		return err
	}
	if err := s.ensurePrograms(ctx); err != nil {
		return err
	}
	if err := s.ensureKernel(ctx); err != nil {
		return err
	}
	if err := rootfs.EnsureTemplate(ctx, s.Home); err != nil {
		return err
	}
	if err := s.ensureBase(ctx); err != nil {
		return err
	}
	return s.ensureRelease(ctx) // last: VMs run without
}

// openCache makes the shared folder and locks it: set-ups of two homes would do the
// same work twice, and the second is faster with the first one's results.
func (s *setup) openCache(ctx context.Context) (unlock func(), err error) {
	for _, dir := range []string{s.kernelCache(), s.imageCache()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "%s cannot be used", CacheVariable).
				WithHint("unset %s, or set it to a folder that you can write to", CacheVariable)
		}
	}
	unlock, err = s.lock(ctx, s.Cache)
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{s.kernelCache(), s.imageCache()} {
		if err := atomicfile.Sweep(dir); err != nil {
			unlock()
			return nil, err
		}
	}
	return unlock, nil
}

func (s *setup) kernelCache() string {
	if s.Cache == "" {
		return ""
	}
	return filepath.Join(s.Cache, "kernel")
}

func (s *setup) imageCache() string { return filepath.Join(s.Cache, "images") }

func (s *setup) ensureKernel(ctx context.Context) error {
	if _, err := kernel.Installed(s.Home); err == nil {
		return nil
	}
	var k kernel.Kernel
	err := s.during(ctx, "kernel", func(ctx context.Context) (err error) {
		k, err = kernel.Ensure(ctx, kernel.Options{
			Home: s.Home, Cache: s.kernelCache(), Distro: s.Distro, Sources: s.Sources,
			Progress: func(line string) { s.line("kernel: %s", line) },
		})
		return err
	})
	if err != nil {
		return rootfs.DiskFull(err)
	}
	s.line("kernel: %s, from %s", k.Version, k.Source)
	return nil
}

// lock takes the lock of a folder. It waits for another set-up to end.
func (s *setup) lock(ctx context.Context, dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "setup.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	waiting := func() { s.line("another set-up is at work in %s; waiting for it", dir) }
	if err := lockFile(ctx, f, waiting); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil // closing gives the lock back
}
