//go:build integration

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// host is one user of AegisVM: a home, and the programs.
type host struct {
	t    *testing.T
	home string
	bin  string
	env  []string
	uid  int // of the user, where it is not this one
}

// newHost makes a home from the one that set-up has filled, and starts its daemon.
// When the test ends the daemon is stopped, and nothing may be left of it.
func newHost(t *testing.T, env ...string) *host {
	t.Helper()
	h := newHome(t, env...)
	if out, err := h.aegis("up").CombinedOutput(); err != nil {
		t.Fatalf("aegis up: %v\n%s%s", err, out, h.log())
	}
	return h
}

// newHome makes a home without starting a daemon.
func newHome(t *testing.T, env ...string) *host {
	t.Helper()
	h := makeHome(t, env...)
	t.Cleanup(h.close)
	return h
}

func makeHome(t *testing.T, env ...string) *host {
	t.Helper()
	ready, bin := os.Getenv("AEGIS_TEST_HOME"), os.Getenv("AEGIS_TEST_BIN")
	if ready == "" || bin == "" {
		msg := "AEGIS_TEST_HOME and AEGIS_TEST_BIN are not set: run this with make integration"
		if os.Getenv("AEGIS_REQUIRE_VM") == "1" {
			t.Fatal(msg)
		}
		t.Skip(msg)
	}
	h := &host{t: t, home: filepath.Join(t.TempDir(), "home"), bin: bin, env: env}
	h.link(ready, "kernel")
	h.link(ready, "data/images")
	return h
}

// link fills dir of the home with hard links to the files of the ready one.
func (h *host) link(ready, dir string) {
	h.t.Helper()
	from := filepath.Join(ready, dir)
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(ready, path)
		if err != nil {
			return err
		}
		to := filepath.Join(h.home, rel)
		switch {
		case d.IsDir():
			return os.MkdirAll(to, 0o700)
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(target, to)
		}
		if err := os.Link(path, to); err == nil {
			return nil
		}
		data, err := os.ReadFile(path) // another file system
		if err != nil {
			return err
		}
		return os.WriteFile(to, data, 0o600)
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) close() {
	// The test's own context has ended when clean-ups run.
	if out, err := h.command(context.WithoutCancel(h.t.Context()), "down").CombinedOutput(); err != nil {
		h.t.Errorf("aegis down: %v\n%s", err, out)
	}
	if left := h.processes(); len(left) > 0 {
		h.t.Errorf("processes left after down: %v", left)
	}
	if left := h.instances(); len(left) > 0 {
		h.t.Errorf("instance folders left after down: %v", left)
	}
	if h.t.Failed() {
		h.t.Logf("aegisd.log:\n%s", h.log())
	}
}

// patience is how long any one command may take before it counts as one that hangs. It is
// no measure of speed: hosts of tests are busy.
var patience = stress(5*time.Minute, 20*time.Minute)

// aegis returns a command of the CLI in this home.
func (h *host) aegis(args ...string) *exec.Cmd {
	h.t.Helper()
	ctx, cancel := context.WithTimeoutCause(h.t.Context(), patience, fmt.Errorf("aegis %q hangs", args))
	h.t.Cleanup(cancel)
	return h.command(ctx, args...)
}

func (h *host) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(h.bin, "aegis"), args...)
	cmd.Env = append(os.Environ(), "AEGIS_HOME="+h.home, "NO_COLOR=1", "AEGIS_ROUTER=off")
	if vmm := os.Getenv("AEGIS_TEST_VMM"); vmm != "" {
		cmd.Env = append(cmd.Env, "AEGIS_VMM="+vmm)
	}
	cmd.Env = append(cmd.Env, h.env...)
	if h.uid != 0 {
		h.become(cmd)
	}
	return cmd
}

// result is what a command left behind.
type result struct {
	status         int
	stdout, stderr string
	took           time.Duration
}

// try runs a command of the CLI to its end.
func (h *host) try(args ...string) result {
	h.t.Helper()
	return finish(h.t, h.aegis(args...))
}

func finish(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	begin := time.Now()
	err := cmd.Run()
	exit := &exec.ExitError{}
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v", cmd.Args, err)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errs.String(), time.Since(begin)}
}

// run runs a command in a VM and fails the test unless it ends with status 0.
func (h *host) run(args ...string) string {
	h.t.Helper()
	r := h.try(append([]string{"run", "--"}, args...)...)
	if r.status != 0 {
		h.t.Fatalf("aegis run -- %q: status %d\n%s%s", args, r.status, r.stdout, r.stderr)
	}
	return r.stdout
}

// daemon returns the process id of the home's daemon.
func (h *host) daemon() int {
	h.t.Helper()
	b, err := os.ReadFile(filepath.Join(h.home, "data", "aegisd.pid"))
	if err != nil {
		h.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		h.t.Fatal(err)
	}
	return pid
}

// processes lists the processes that belong to the home: those that name it in their
// arguments or environment, or that have a file of it open.
func (h *host) processes() []string {
	var found []string
	h.eachProcess(func(pid int, args string) { found = append(found, strconv.Itoa(pid)+" "+args) })
	return found
}

// machines lists the VMMs of the home, by the id of their instance.
func (h *host) machines() map[string]int {
	h.t.Helper()
	found := map[string]int{}
	h.eachProcess(func(pid int, args string) {
		id := h.machineOf(pid, args)
		if id == "" {
			return
		}
		if other, twice := found[id]; twice {
			h.t.Errorf("two VMs of %s: %d and %d", id, other, pid)
		}
		found[id] = pid
	})
	return found
}

// machineOf returns the id of the instance whose VMM a process is, or "". QEMU's name it; of
// others it is the one whose disk they have open.
func (h *host) machineOf(pid int, args string) string {
	if _, name, ok := strings.Cut(args, "guest="); ok {
		id, _, _ := strings.Cut(name, " ")
		return id
	}
	program, _, _ := strings.Cut(args, " ")
	if !slices.Contains([]string{"cloud-hypervisor", "aegis-vmm-worker"}, filepath.Base(program)) {
		return ""
	}
	links, _ := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "fd", "*")) // the pattern is good
	for _, fd := range links {
		target, _ := os.Readlink(fd) // "" when it was closed meanwhile
		if rest, ok := strings.CutPrefix(target, filepath.Join(h.home, "data", "instances")+"/"); ok {
			id, _, _ := strings.Cut(rest, "/")
			return id
		}
	}
	return ""
}

// eachProcess calls do for every process of the home that has not ended.
func (h *host) eachProcess(do func(pid int, args string)) {
	h.t.Helper()
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		h.t.Fatal(err)
	}
	for _, p := range procs {
		pid, err := strconv.Atoi(filepath.Base(p))
		if err != nil {
			h.t.Fatal(err)
		}
		if pid == os.Getpid() || !alive(pid) {
			continue
		}
		env, _ := os.ReadFile(filepath.Join(p, "environ")) // it may have gone
		args, _ := os.ReadFile(filepath.Join(p, "cmdline"))
		if bytes.Contains(env, []byte(h.home)) || bytes.Contains(args, []byte(h.home)) || h.hasFile(p) {
			do(pid, string(bytes.ReplaceAll(args, []byte{0}, []byte{' '})))
		}
	}
}

// hasFile reports whether a process has a file of the home open.
func (h *host) hasFile(proc string) bool {
	fds, _ := os.ReadDir(filepath.Join(proc, "fd")) // it may have gone
	for _, fd := range fds {
		if target, err := os.Readlink(filepath.Join(proc, "fd", fd.Name())); err == nil && strings.HasPrefix(target, h.home) {
			return true
		}
	}
	return false
}

// alive reports whether a process runs, or still has threads that do.
func alive(pid int) bool {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	if !strings.HasPrefix(rest, "Z") {
		return true
	}
	tasks, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "task"))
	return err == nil && len(tasks) > 1
}

// instances lists the folders of instances.
func (h *host) instances() []string {
	entries, err := os.ReadDir(filepath.Join(h.home, "data", "instances"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		h.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// footprint is what a home costs its host; two of them are compared for leaks.
type footprint struct {
	processes int // the daemon and its VMs
	files     int // open in the daemon
	instances int // folders
	shm       int // files in /dev/shm
}

func (h *host) footprint() footprint {
	h.t.Helper()
	fds, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(h.daemon()), "fd"))
	if err != nil {
		h.t.Fatal(err)
	}
	shm, err := os.ReadDir("/dev/shm")
	if err != nil {
		h.t.Fatal(err)
	}
	return footprint{len(h.processes()), len(fds), len(h.instances()), len(shm)}
}

// settled returns the footprint when it has been the same for a while: a template may
// still be written, or the daemon not have heard yet that its last clients are gone.
func (h *host) settled() footprint {
	h.t.Helper()
	last, since := h.footprint(), time.Now()
	for deadline := time.Now().Add(30 * time.Second); time.Since(since) < 2*time.Second; time.Sleep(50 * time.Millisecond) {
		if now := h.footprint(); now != last {
			last, since = now, time.Now()
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("the footprint does not settle: %+v\n%v\n%v", last, h.processes(), h.files())
		}
	}
	return last
}

// files lists what the daemon has open.
func (h *host) files() []string {
	var out []string
	links, _ := filepath.Glob(filepath.Join("/proc", strconv.Itoa(h.daemon()), "fd", "*")) // the pattern is good
	for _, fd := range links {
		target, _ := os.Readlink(fd) // "" when it was closed meanwhile
		out = append(out, target)
	}
	return out
}

// daemonMemory returns the daemon's resident memory in bytes.
func (h *host) daemonMemory() int64 {
	h.t.Helper()
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(h.daemon()), "status"))
	if err != nil {
		h.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			kb, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				h.t.Fatal(err)
			}
			return kb << 10
		}
	}
	h.t.Fatal("no VmRSS in the daemon's status")
	return 0
}

func (h *host) log() string {
	b, err := os.ReadFile(filepath.Join(h.home, "data", "aegisd.log"))
	if err != nil {
		return err.Error()
	}
	lines := slices.Collect(strings.Lines(string(b)))
	return strings.Join(lines[max(0, len(lines)-60):], "")
}

// stress picks the short form of a heavy test, or its full form under `make stress`.
func stress[T any](short, full T) T {
	if os.Getenv("AEGIS_STRESS") == "1" {
		return full
	}
	return short
}
