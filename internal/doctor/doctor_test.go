package doctor

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/kernel/kerneltest"
	"github.com/xfeldman/aegisvm/internal/paths"
	"github.com/xfeldman/aegisvm/internal/rootfs"
	"github.com/xfeldman/aegisvm/internal/rootfs/rootfstest"
	"github.com/xfeldman/aegisvm/internal/setup"
)

// host is a host that lacks nothing.
type host struct {
	Options
	t    *testing.T
	dir  string
	lack map[string]bool // programs that are not there
}

func newHost(t *testing.T) *host {
	t.Helper()
	dir := t.TempDir()
	h := &host{t: t, dir: dir, lack: map[string]bool{}}
	h.Options = Options{
		Home: paths.Home(filepath.Join(dir, "home")), Root: dir,
		Look: func(name string) (string, error) {
			if h.lack[name] {
				return "", os.ErrNotExist
			}
			return filepath.Join(dir, name), nil
		},
		Program: func(name string) (string, error) {
			if h.lack[name] {
				return "", errors.New(name + " is not here")
			}
			return name, nil
		},
		Accel: func(context.Context) (Accelerator, error) {
			return Accelerator{Name: "kvm", Isolation: "hardware", Why: "it boots a kernel"}, nil
		},
	}
	h.qemu("QEMU emulator version 7.2.22 (Debian 1:7.2)", "microvm  microvm (i386)")
	h.write("proc/meminfo", "MemTotal: 9 kB\nMemAvailable:   16777216 kB\n")
	kerneltest.Install(t, h.Home)
	rootfstest.Install(t, h.Home)
	return h
}

func (h *host) write(name, text string) {
	h.t.Helper()
	path := filepath.Join(h.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o700)); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) qemu(version, machines string) {
	h.t.Helper()
	h.write(setup.QEMU().Name, "#!/bin/sh\ncase $1 in --version) echo '"+version+"';; *) echo '"+machines+"';; esac\n")
}

func (h *host) remove(path string) {
	h.t.Helper()
	if err := os.RemoveAll(path); err != nil {
		h.t.Fatal(err)
	}
}

func TestAHealthyHost(t *testing.T) {
	checks := Run(t.Context(), newHost(t).Options)
	for _, c := range checks {
		if c.Status != OK && c.Name != "free disk" { // the test's own disk may be small
			t.Errorf("%+v", c)
		}
		if c.Status == OK && c.Mend != "" || c.Detail == "" {
			t.Errorf("%+v", c)
		}
	}
	if len(checks) < 8 {
		t.Errorf("only %d checks were made", len(checks))
	}
}

func TestWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		breakIt func(h *host)
		check   string
		status  Status
		detail  string
		mend    string
	}{
		"no harness":  {func(h *host) { h.lack["aegis-harness"] = true }, "programs", Fail, "aegis-harness is not here", "make build"},
		"no qemu":     {func(h *host) { h.lack[setup.QEMU().Name] = true }, "qemu", Fail, "not installed", "sudo apt-get install -y qemu-system-"},
		"named qemu":  {func(h *host) { h.QEMU = "my-qemu"; h.lack["my-qemu"] = true }, "qemu", Fail, "my-qemu is not installed", "setting qemu"},
		"old qemu":    {func(h *host) { h.qemu("QEMU emulator version 6.2.0 (Debian)", "microvm") }, "qemu", Fail, "6.2.0 is too old", "cloud-archive"},
		"strange":     {func(h *host) { h.qemu("hello", "microvm") }, "qemu", Fail, "does not tell its version", "apt-get"},
		"broken qemu": {func(h *host) { h.write(setup.QEMU().Name, "#!/bin/sh\nexit 3\n") }, "qemu", Fail, "exit status 3", "apt-get"},
		"no mke2fs":   {func(h *host) { h.lack["mke2fs"] = true }, "mke2fs", Fail, "not installed", "e2fsprogs"},
		"no kernel":   {func(h *host) { h.remove(h.Home.Kernel()) }, "kernel", Fail, "no kernel", "aegis setup"},
		"no image":    {func(h *host) { h.remove(h.Home.Images()) }, "base image", Fail, "not here", "aegis setup"},
		"no template": {func(h *host) { h.remove(rootfs.TemplatePath(h.Home)) }, "base image", Fail, "no such file", "aegis setup"},
		"no builder": {func(h *host) {
			h.remove(h.Home.Images())
			h.lack["mmdebstrap"] = true
		}, "mmdebstrap", Fail, "not installed", "mmdebstrap"},
		"builder not needed": {func(h *host) { h.lack["mmdebstrap"] = true }, "mmdebstrap", OK, "not needed", ""},
		"no uidmap": {func(h *host) {
			h.remove(h.Home.Images())
			h.UID, h.lack["newuidmap"] = 1000, true
		}, "newuidmap", Fail, "not installed", "uidmap"},
		"no namespaces": {func(h *host) {
			h.remove(h.Home.Images())
			h.UID = 1000
			h.write("proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n")
		}, "user namespaces", Fail, "forbids", "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"},
		"little memory": {func(h *host) { h.write("proc/meminfo", "MemAvailable: 1000000 kB\n") }, "free memory", Warn, "976", "--memory"},
		"no memory":     {func(h *host) { h.write("proc/meminfo", "MemAvailable: 1000 kB\n") }, "free memory", Fail, "1000 KB", "--memory"},
		"slow": {func(h *host) {
			h.Accel = func(context.Context) (Accelerator, error) {
				return Accelerator{Name: "tcg", Isolation: "emulated", Why: "no /dev/kvm"}, nil
			}
		}, "accelerator", Warn, "tcg, emulated: no /dev/kvm", "hardware virtualization"},
		"could be faster": {func(h *host) {
			h.Accel = func(context.Context) (Accelerator, error) {
				return Accelerator{VMM: "qemu 7.2.22", Name: "tcg", Isolation: "emulated", Why: "no KVM", Better: []Advice{{"KVM is faster", "sudo usermod"}}}, nil
			}
		}, "faster", Warn, "KVM is faster", "sudo usermod"},
		"names the VMM": {func(h *host) {
			h.Accel = func(context.Context) (Accelerator, error) {
				return Accelerator{VMM: "qemu 7.2.22", Name: "kvm", Isolation: "hardware", Why: "it works"}, nil
			}
		}, "accelerator", OK, "qemu 7.2.22 on kvm, hardware: it works", ""},
		"no verdict": {func(h *host) {
			h.Accel = func(context.Context) (Accelerator, error) {
				return Accelerator{}, fault.New(fault.Unavailable, "it hangs").WithHint("run: something")
			}
		}, "accelerator", Fail, "it hangs", "something"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			c.breakIt(h)
			checks := Run(t.Context(), h.Options)
			for _, got := range checks {
				if got.Name != c.check {
					continue
				}
				if got.Status != c.status || !strings.Contains(got.Detail, c.detail) || !strings.Contains(got.Mend, c.mend) || (c.mend == "") != (got.Mend == "") {
					t.Errorf("%+v", got)
				}
				if c.status == Fail && Healthy(checks) {
					t.Error("the host counts as healthy")
				}
				return
			}
			t.Errorf("there is no check %q in %+v", c.check, checks)
		})
	}
}
