package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/kernel"
	"github.com/xfeldman/aegisvm/internal/paths"
	"github.com/xfeldman/aegisvm/internal/rootfs"
	"github.com/xfeldman/aegisvm/internal/setup"
	"github.com/xfeldman/aegisvm/internal/size"
)

// Limits of what counts as enough.
const (
	minDisk  = 1 * size.GiB   // less, and the next machines fill the disk
	fineDisk = 5 * size.GiB   // less is a warning
	minRAM   = 512 * size.MiB // one machine of default size, half used
	fineRAM  = 1536 * size.MiB
	fineSHM  = 512 * size.MiB // memory of machines that sleep; containers have 64 MB
)

// The oldest QEMU that has what the driver needs: -netdev stream came with 7.2.
const (
	minMajor = 7
	minMinor = 2
)

func (o Options) complete() Options {
	if o.Look == nil {
		o.Look = rootfs.LookProgram
		o.UID = os.Getuid()
	}
	if o.Program == nil {
		o.Program = paths.Program
	}
	if o.Root == "" {
		o.Root = "/"
	}
	return o
}

func (o *Options) ownPrograms() Check {
	c := Check{Name: "programs", Status: OK, Detail: "aegisd and aegis-harness are in place"}
	for _, name := range []string{"aegisd", "aegis-harness"} {
		if _, err := o.Program(name); err != nil {
			c.Status, c.Detail = Fail, err.Error()
			c.Mend = "install AegisVM again, or run `make build` in its source"
		}
	}
	return c
}

var (
	qemuVersion = regexp.MustCompile(`version (\d+)\.(\d+)[^ ]*`)
	microvm     = regexp.MustCompile(`(?m)^microvm\b`)
)

// qemu checks the program that runs machines: its version, and on amd64 the
// machine type that distributions sometimes leave out.
func (o *Options) qemu(ctx context.Context) Check {
	p := setup.QEMU()
	c := Check{Name: "qemu", Status: Fail, Mend: installCommand(p.Package)}
	name := cmp.Or(o.QEMU, p.Name)
	path, err := o.Look(name)
	if err != nil {
		c.Detail = name + " is not installed"
		if o.QEMU != "" {
			c.Mend = "the setting qemu names it: aegis config show"
		}
		return c
	}
	out, err := output(ctx, path, "--version")
	if err != nil {
		c.Detail = err.Error()
		return c
	}
	m := qemuVersion.FindStringSubmatch(out)
	if m == nil {
		c.Detail = path + " does not tell its version"
		return c
	}
	major, _ := strconv.Atoi(m[1]) // digits
	minor, _ := strconv.Atoi(m[2]) // digits
	c.Detail = path + " " + strings.TrimPrefix(m[0], "version ")
	if major < minMajor || (major == minMajor && minor < minMinor) {
		c.Detail += fmt.Sprintf(" is too old: %d.%d or newer is needed", minMajor, minMinor)
		c.Mend = "on Ubuntu 22.04: sudo add-apt-repository -y cloud-archive:caracal && " + installCommand(p.Package)
		return c
	}
	if p.Name == "qemu-system-x86_64" {
		if out, err = output(ctx, path, "-M", "help"); err != nil || !microvm.MatchString(out) {
			c.Detail += " has no machine type microvm"
			return c
		}
	}
	c.Status, c.Mend = OK, ""
	return c
}

func (o *Options) formatter() Check { return o.program("mke2fs", "e2fsprogs", Fail) }

// builder checks for the program that only set-up needs.
func (o *Options) builder() Check {
	if _, err := rootfs.LoadImage(o.Home, rootfs.BaseImage); err == nil {
		return Check{Name: "mmdebstrap", Status: OK, Detail: "not needed any more: the base image is built"}
	}
	return o.program("mmdebstrap", "mmdebstrap", Fail)
}

// program checks that a program is there; missing is its status when it is not.
func (o *Options) program(name, pkg string, missing Status) Check {
	path, err := o.Look(name)
	if err != nil {
		return Check{Name: name, Status: missing, Detail: "not installed", Mend: installCommand(pkg)}
	}
	return Check{Name: name, Status: OK, Detail: path}
}

// namespaces checks what an ordinary user needs to build the base image: a range of
// subordinate ids, and a kernel that lets users make namespaces.
func (o *Options) namespaces() []Check {
	if _, err := rootfs.LoadImage(o.Home, rootfs.BaseImage); err == nil || o.UID == 0 {
		return nil
	}
	checks := []Check{o.program("newuidmap", "uidmap", Fail)}
	c := Check{Name: "user namespaces", Status: OK, Detail: "allowed"}
	for _, s := range []struct{ file, bad string }{
		{"proc/sys/kernel/unprivileged_userns_clone", "0"},
		{"proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"},
		{"proc/sys/user/max_user_namespaces", "0"},
	} {
		data, err := os.ReadFile(filepath.Join(o.Root, s.file))
		if err == nil && strings.TrimSpace(string(data)) == s.bad {
			key := strings.ReplaceAll(strings.TrimPrefix(s.file, "proc/sys/"), "/", ".")
			good := map[string]string{"0": "1", "1": "0"}[s.bad]
			if strings.HasPrefix(key, "user.") {
				good = "10000"
			}
			c = Check{Name: c.Name, Status: Fail, Detail: key + " forbids them", Mend: "sudo sysctl -w " + key + "=" + good}
		}
	}
	return append(checks, c)
}

func (o *Options) kernel() Check {
	k, err := kernel.Installed(o.Home)
	if err != nil {
		return Check{Name: "kernel", Status: Fail, Detail: err.Error(), Mend: mendOf(err, "aegis setup")}
	}
	return Check{Name: "kernel", Status: OK, Detail: k.Version + ", from " + k.Source}
}

func (o *Options) baseImage() Check {
	img, err := rootfs.LoadImage(o.Home, rootfs.BaseImage)
	if err == nil {
		_, err = os.Stat(rootfs.TemplatePath(o.Home))
	}
	if err != nil {
		return Check{Name: "base image", Status: Fail, Detail: err.Error(), Mend: mendOf(err, "aegis setup")}
	}
	return Check{Name: "base image", Status: OK, Detail: fmt.Sprintf("%s, %v, built %s", img.Suite, img.Size, img.Created.Format("2006-01-02"))}
}

func (o *Options) disk() Check {
	dir := string(o.Home)
	for dir != filepath.Dir(dir) {
		if _, err := os.Stat(dir); err == nil {
			break
		}
		dir = filepath.Dir(dir) // a home that is not there yet will be on its parent's disk
	}
	free, err := rootfs.FreeSpace(dir)
	if err != nil {
		return Check{Name: "free disk", Status: Fail, Detail: err.Error()}
	}
	return level("free disk", free, minDisk, fineDisk, "for "+string(o.Home), "free some space there, or move the home with AEGIS_HOME")
}

// memory checks the host's memory and the shared memory file system. A host
// without /proc has neither check.
func (o *Options) memory() []Check {
	var checks []Check
	if available, err := memAvailable(filepath.Join(o.Root, "proc", "meminfo")); err == nil {
		checks = append(checks, level("free memory", available, minRAM, fineRAM, "available", "end what is not needed, or give machines less with --memory"))
	} else if !errors.Is(err, os.ErrNotExist) {
		checks = append(checks, Check{Name: "free memory", Status: Warn, Detail: err.Error()})
	}
	if free, err := rootfs.FreeSpace(filepath.Join(o.Root, "dev", "shm")); err == nil {
		checks = append(checks, level("/dev/shm", free, 0, fineSHM, "free", "in a container: start it with --shm-size 2g; machines keep their memory on disk until then"))
	}
	return checks
}

// level makes the check of a quantity that should be plenty.
func level(name string, have, least, fine size.Bytes, of, mend string) Check {
	c := Check{Name: name, Status: OK, Detail: have.String() + " " + of}
	switch {
	case have < least:
		c.Status, c.Mend = Fail, mend
	case have < fine:
		c.Status, c.Mend = Warn, mend
	}
	return c
}

var availableLine = regexp.MustCompile(`(?m)^MemAvailable:\s+(\d+) kB$`)

func memAvailable(meminfo string) (size.Bytes, error) {
	data, err := os.ReadFile(meminfo)
	if err != nil {
		return 0, err
	}
	m := availableLine.FindSubmatch(data)
	if m == nil {
		return 0, fmt.Errorf("%s has no MemAvailable", meminfo)
	}
	kb, err := strconv.ParseInt(string(m[1]), 10, 53)
	return size.Bytes(kb) * size.KiB, err
}

func installCommand(pkg string) string { return "sudo apt-get install -y " + pkg }

// mendOf returns the hint of an error, or what usually helps.
func mendOf(err error, usual string) string {
	if hint := fault.HintOf(err); hint != "" {
		return strings.TrimPrefix(hint, "run: ")
	}
	return usual
}

// output runs a program of the host and returns what it prints.
func output(ctx context.Context, path string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, programTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, args...).Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", path, strings.Join(args, " "), err)
	}
	return string(out), nil
}
