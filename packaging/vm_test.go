//go:build dist

package packaging

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// clean is a VM with a system in which AegisVM is not installed. Its /workspace is the folder
// share of this host.
type clean struct {
	t     *testing.T
	bin   string // the programs that run the VM
	env   []string
	share string
}

func newClean(t *testing.T) *clean {
	t.Helper()
	bin, cache := os.Getenv("AEGIS_TEST_BIN"), os.Getenv("AEGIS_SETUP_CACHE")
	if bin == "" || cache == "" {
		t.Fatal("AEGIS_TEST_BIN and AEGIS_SETUP_CACHE are not set: run this with make check-dist")
	}
	c := &clean{t: t, bin: bin, share: filepath.Join(t.TempDir(), "share")}
	c.env = append(os.Environ(), "AEGIS_HOME="+filepath.Join(t.TempDir(), "home"), "AEGIS_ROUTER=off")
	// What set-up would fetch and build: the VM has no network in this test.
	for _, dir := range []string{"kernel", "images"} {
		if err := os.CopyFS(filepath.Join(c.share, "cache", dir), os.DirFS(filepath.Join(cache, dir))); err != nil {
			t.Fatal(err)
		}
	}
	c.aegis("setup")
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, filepath.Join(c.bin, "aegis"), "down", "--stop")
		cmd.Env = c.env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("aegis down: %v\n%s", err, out)
		}
	})
	c.aegis("instance", "start", "--name", "clean", "--memory", "3G", "--cpus", "2", "--egress", "none", "--pause-after", "0",
		"--workspace", c.share, "--", "sleep", "infinity")
	return c
}

// aegis runs a command of the host's.
func (c *clean) aegis(args ...string) string {
	c.t.Helper()
	begin := time.Now()
	cmd := exec.CommandContext(c.t.Context(), filepath.Join(c.bin, "aegis"), args...)
	cmd.Env = c.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		c.t.Fatalf("aegis %q: %v\n%s", args, err, out)
	}
	c.t.Logf("aegis %q: %v", args, time.Since(begin).Round(time.Second/10))
	return string(out)
}

// do runs a script in the VM. What it starts ends with it, a daemon too.
func (c *clean) do(script string) string {
	c.t.Helper()
	// A machine that is emulated by one that is emulated takes its time.
	const environment = "export LC_ALL=C DEBIAN_FRONTEND=noninteractive AEGIS_BOOT_TIMEOUT=30m AEGIS_ROUTER=off\n"
	return c.aegis("exec", "clean", "--", "sh", "-ec", environment+script)
}

// fetchDependencies brings the packages that ours need, and the VM does not have, into the
// folder debs of the share: from where this host gets its own.
func (c *clean) fetchDependencies(packages []string) {
	c.t.Helper()
	dir := c.t.TempDir()
	status := c.do("cat /var/lib/dpkg/status")
	if err := os.WriteFile(filepath.Join(dir, "status"), []byte(status), 0o600); err != nil {
		c.t.Fatal(err)
	}
	debs := filepath.Join(c.share, "debs")
	for _, d := range []string{filepath.Join(debs, "partial"), filepath.Join(dir, "lists", "partial")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			c.t.Fatal(err)
		}
	}
	options := []string{
		"-q", "-y", "--no-install-recommends", "-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=", "-o", "Dir::State::status=" + filepath.Join(dir, "status"),
		"-o", "Dir::State::lists=" + filepath.Join(dir, "lists"), "-o", "Dir::Cache=" + dir, "-o", "Dir::Cache::archives=" + debs,
		"-o", "Acquire::Languages=none",
	}
	for _, command := range [][]string{{"update"}, append([]string{"install", "--download-only"}, packages...)} {
		out, err := exec.CommandContext(c.t.Context(), "apt-get", append(options, command...)...).CombinedOutput()
		if err != nil {
			c.t.Fatalf("apt-get %q: %v\n%s", command, err, out)
		}
	}
	// apt copies what is a file already, or leaves it where it is.
	for _, p := range packages {
		if err := os.RemoveAll(filepath.Join(debs, filepath.Base(p))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			c.t.Fatal(err)
		}
	}
}

// files lists what is in the VM, its disk alone. What dpkg writes down of what it does, is left out.
func (c *clean) files() []string {
	c.t.Helper()
	list := c.do(`find / -xdev \( -path /tmp -o -path /var/log -o -path /var/lib/dpkg -o -path /var/cache -o -path /run \) -prune -o -print | sort`)
	return strings.Split(strings.TrimSpace(list), "\n")
}

// TestDistInVM installs the packages in a clean VM, runs a program in a VM of that VM, and
// removes them again: what is left is the user's home of AegisVM.
func TestDistInVM(t *testing.T) {
	dir, version := dist(t)
	c := newClean(t)
	var packages []string
	for _, name := range []string{"aegisvm", "aegisvm-agent-kit"} {
		file := name + "_" + version + "_linux_" + runtime.GOARCH + ".deb"
		packages = append(packages, filepath.Join(dir, file))
		b, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(c.share, name+".deb"), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c.fetchDependencies(packages)
	c.do("dpkg --unpack /workspace/debs/*.deb >/dev/null && dpkg --configure -a >/dev/null")
	before := c.files()

	c.do("dpkg -i /workspace/aegisvm.deb /workspace/aegisvm-agent-kit.deb")
	if got := c.do("aegis --version"); got != "aegis "+version+"\n" {
		t.Errorf("it is %q, not %s", got, version)
	}
	if got := c.do("aegis kit list"); !strings.Contains(got, "agent") || strings.Contains(got, "broken") {
		t.Errorf("the kits are %s", got)
	}
	c.do("AEGIS_SETUP_CACHE=/workspace/cache aegis setup </dev/null")
	if got := c.do("aegis run -- echo hello 2>/tmp/said || { cat /tmp/said; exit 1; }"); got != "hello\n" {
		t.Errorf("the VM in the VM says %q", got)
	}

	// A daemon that runs is put to sleep, its VM with it, which left to itself would go on.
	said := c.do("aegis instance start --name kept -- sleep infinity; dpkg -r aegisvm-agent-kit aegisvm; for exe in /proc/[0-9]*/exe; do readlink $exe || true; done")
	if !strings.Contains(said, "putting the VMs of root to sleep") || strings.Contains(said, "/usr/bin/aegisd") || strings.Contains(said, "/usr/bin/qemu") {
		t.Errorf("the daemon, or its VM, goes on: %s", said)
	}
	var left []string
	for _, file := range c.files() {
		if _, was := slices.BinarySearch(before, file); !was && file != "/root/.aegis" && !strings.HasPrefix(file, "/root/.aegis/") {
			left = append(left, file)
		}
	}
	if len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	if got := c.do("ls /root/.aegis"); !strings.Contains(got, "kernel") {
		t.Errorf("of the home is left %q", got)
	}
}
