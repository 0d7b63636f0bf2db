package setup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/xfeldman/aegisvm/internal/apt"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/rootfs"
	"github.com/xfeldman/aegisvm/internal/size"
)

// basePackages make a minimal system into one that an agent can work with.
var basePackages = []string{
	"bash", "ca-certificates", "curl", "git", "hostname", "iproute2", "procps", "python3",
}

// baseOptions leave out what nobody reads in a machine: a quarter of the image.
var baseOptions = []string{
	"--variant=minbase", "--format=tar",
	"--aptopt=Acquire::Languages none",
	"--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/info/*",
	"--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=path-include=/usr/share/locale/locale.alias",
	"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-include=/usr/share/doc/*/copyright",
}

// recipe tells images apart that were built by different set-ups.
func (s *setup) recipe() string {
	return "1 " + s.Distro.String() + " " + strings.Join(basePackages, " ")
}

// takeBase takes the base image from the cache, if both are so. Where it does not it is built,
// unless the disk is full: then there is no room for that either.
func (s *setup) takeBase() error {
	if _, err := rootfs.LoadImage(s.Home, rootfs.BaseImage); err == nil || s.Cache == "" {
		return nil
	}
	switch _, err := rootfs.Import(s.Home, rootfs.BaseImage, s.recipe(), s.imageCache()); {
	case err == nil:
		s.line("base image: taken from %s", s.Cache)
	case fault.KindOf(rootfs.DiskFull(err)) == fault.Exhausted:
		return rootfs.DiskFull(err)
	case !errors.Is(err, fs.ErrNotExist):
		s.line("base image: the one in %s is not used: %v", s.Cache, err)
	}
	return nil
}

func (s *setup) ensureBase(ctx context.Context) error {
	if _, err := rootfs.LoadImage(s.Home, rootfs.BaseImage); err == nil {
		return nil
	}
	s.line("base image: building a %s userland; this takes a minute or more", s.Distro)
	var img rootfs.Image
	err := s.during(ctx, "base image", func(ctx context.Context) (err error) {
		img, err = s.buildBase(ctx)
		return err
	})
	if err != nil {
		return err
	}
	s.line("base image: %v, %s", img.Size, s.Distro)
	if s.Cache != "" {
		if err := rootfs.Export(s.Home, rootfs.BaseImage, s.imageCache()); err != nil {
			s.line("base image: not kept in %s: %v", s.Cache, err)
		}
	}
	return nil
}

// minBuildSpace is what the building of the base image needs at most, beside the
// archive that mmdebstrap unpacks into its own temporary folder.
const minBuildSpace = 1 * size.GiB

func (s *setup) buildBase(ctx context.Context) (rootfs.Image, error) {
	if free, err := rootfs.FreeSpace(s.Home.Images()); err == nil && free < minBuildSpace {
		return rootfs.Image{}, fault.New(fault.Exhausted, "only %v are free for the base image", free).By(fault.Host).
			WithHint("free %v on the disk of %s, then run: aegis setup", minBuildSpace, s.Home)
	}
	program, err := rootfs.LookProgram("mmdebstrap")
	if err != nil {
		return rootfs.Image{}, err
	}
	mode := "root"
	if s.UID != 0 {
		mode = "unshare"
	}
	args := append([]string{"--mode=" + mode, "--include=" + strings.Join(basePackages, ",")}, baseOptions...)
	args = append(append(args, s.Distro.Codename, "-"), apt.Lines(s.Sources)...)

	runCtx, cancel := context.WithCancel(ctx)
	p, err := s.start(runCtx, program, args)
	if err != nil {
		cancel()
		return rootfs.Image{}, err
	}
	img, err := rootfs.BuildImage(runCtx, s.Home, rootfs.Image{
		Name: rootfs.BaseImage, Suite: s.Distro.String(), Recipe: s.recipe(), Include: basePackages,
		Env: []string{"PATH=" + rootfs.DefaultPath},
	}, p)
	cancel() // what still runs now has failed, or writes to nobody
	_ = p.wait()
	if ctx.Err() != nil {
		return rootfs.Image{}, fmt.Errorf("build the base image: %w", context.Cause(ctx))
	}
	if err != nil {
		return rootfs.Image{}, fmt.Errorf("build the base image: %w", err)
	}
	return img, nil
}

// process is a running program whose output is read. Reading ends with io.EOF only
// if the program succeeded: an archive that stops early is not taken for a whole one.
type process struct {
	cmd    *exec.Cmd
	out    io.ReadCloser
	stderr *tail
	waited bool
	err    error
}

// start runs mmdebstrap. Its messages become progress lines.
func (s *setup) start(ctx context.Context, program string, args []string) (*process, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")
	// The user's own folder may be closed to the users of mmdebstrap's namespace.
	cmd.Dir = "/"
	// mmdebstrap unmounts and removes its folder when it is asked to stop. Those it
	// started are asked too: they hold its output open.
	cmd.SysProcAttr = childAttr(ctx, s.UID == 0)
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = stopGrace
	p := &process{cmd: cmd, stderr: &tail{each: func(line string) {
		if text, ok := strings.CutPrefix(line, "I: "); ok && !strings.Contains(text, "tempdir") {
			s.line("base image: %s", text)
		}
	}}}
	cmd.Stderr = p.stderr
	var err error
	if p.out, err = cmd.StdoutPipe(); err != nil {
		return nil, err
	}
	return p, cmd.Start()
}

func (p *process) Read(b []byte) (int, error) {
	n, err := p.out.Read(b)
	if errors.Is(err, io.EOF) {
		if waitErr := p.wait(); waitErr != nil {
			return n, waitErr
		}
	}
	return n, err
}

// wait waits for the program's end, once.
func (p *process) wait() error {
	if p.waited {
		return p.err
	}
	p.waited = true
	if err := p.cmd.Wait(); err != nil {
		p.err = fault.Wrap(fault.Unavailable, err, "mmdebstrap: %s", p.stderr).By(fault.Host).
			WithHint("check the network and the host's apt sources; see also: aegis doctor")
	}
	return p.err
}
