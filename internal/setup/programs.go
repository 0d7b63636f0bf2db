package setup

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/rootfs"
)

// Program is something of the host's that AegisVM runs.
type Program struct {
	Name    string // of the file
	Package string // of Debian and Ubuntu
}

// QEMU is the program that runs machines of this host's own architecture.
func QEMU() Program {
	if runtime.GOARCH == "arm64" {
		return Program{"qemu-system-aarch64", "qemu-system-arm"}
	}
	return Program{"qemu-system-x86_64", "qemu-system-x86"}
}

// stopGrace is how long a stopped program may tidy up before it is killed.
const stopGrace = 20 * time.Second

// missing returns the programs that this host lacks and that this home needs.
func (s *setup) missing() []Program {
	needed := []Program{QEMU(), {"mke2fs", "e2fsprogs"}}
	if _, err := rootfs.LoadImage(s.Home, rootfs.BaseImage); err != nil {
		needed = append(needed, Program{"mmdebstrap", "mmdebstrap"})
		if s.UID != 0 {
			needed = append(needed, Program{"newuidmap", "uidmap"})
		}
	}
	return slices.DeleteFunc(needed, func(p Program) bool {
		_, err := rootfs.LookProgram(p.Name)
		return err == nil
	})
}

// ensurePrograms installs what is missing, if it may, or says how to.
func (s *setup) ensurePrograms(ctx context.Context) error {
	missing := s.missing()
	if len(missing) == 0 {
		return nil
	}
	var names, packages []string
	for _, p := range missing {
		names = append(names, p.Name)
		packages = append(packages, p.Package)
	}
	lack := fault.New(fault.Unavailable, "this host has no %s", strings.Join(names, ", ")).By(fault.Host)
	if !s.HasApt {
		return lack.WithHint("install them with this host's package manager, then run: aegis setup")
	}
	install := append([]string{"apt-get", "install", "-y", "--no-install-recommends"}, packages...)
	command := "sudo " + strings.Join(install, " ")
	switch {
	case s.UID == 0:
		s.line("installing %s", strings.Join(packages, ", "))
	case s.Ask != nil && s.Ask(fmt.Sprintf("This host lacks %s. Run `%s` now?", strings.Join(names, ", "), command)):
		// sudo keeps the environment to itself, and nobody would see a question of debconf.
		install = append([]string{"sudo", "env", "DEBIAN_FRONTEND=noninteractive"}, install...)
	default:
		return lack.WithHint("run: %s", command)
	}
	if err := s.during(ctx, "installing", func(ctx context.Context) error { return s.install(ctx, install) }); err != nil {
		return fault.Wrap(fault.Unavailable, err, "install %s", strings.Join(packages, ", ")).By(fault.Host).WithHint("run: %s", command)
	}
	if still := s.missing(); len(still) > 0 {
		return fault.New(fault.Unavailable, "%s is still missing after its installation", still[0].Name).By(fault.Host)
	}
	return nil
}

// install runs an apt-get command. Lists that are missing or old are the usual
// reason for it to go wrong, so they are fetched then and it is tried once more.
func (s *setup) install(ctx context.Context, command []string) error {
	if s.command(ctx, command) == nil {
		return nil
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	s.line("fetching the lists of packages")
	i := slices.Index(command, "apt-get")
	// A source that cannot be reached need not be the one with our packages.
	_ = s.command(ctx, append(slices.Clone(command[:i+1]), "update", "-q"))
	return s.command(ctx, command)
}

// command runs a program with its output kept for the error. Its standard input is
// the terminal only where a person agreed to that, for sudo's sake.
func (s *setup) command(ctx context.Context, command []string) error {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	out := &tail{}
	cmd.Stdout, cmd.Stderr = out, out
	if s.Ask != nil {
		cmd.Stdin = os.Stdin
	}
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopGrace
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, out)
	}
	return nil
}
