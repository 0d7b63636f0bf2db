package qemu

import (
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/size"
)

// TestCgroups divides a part of the hierarchy that is delegated, and none that is not. It
// needs cgroup version 2 and the right to make groups; test/e2e runs it in a VM.
func TestCgroups(t *testing.T) {
	top := filepath.Join(cgroupMount, "proof-"+rand.Text())
	if cgroupOf(os.Getpid()) == "" || os.Mkdir(top, 0o700) != nil {
		t.Skip("groups of version 2 cannot be made here")
	}
	t.Cleanup(func() {
		if err := os.Remove(top); err != nil {
			t.Error(err)
		}
	})
	for _, c := range []string{"+memory", "+pids", "+cpu"} {
		_ = writeFile(cgroupMount, "cgroup.subtree_control", c) // what there is is looked at below
	}
	if delegated(top) != nil {
		t.Error("a group that nobody gave away is used")
	}
	if err := unix.Setxattr(top, "user.delegate", []byte("1"), 0); err != nil {
		t.Skipf("groups have no attributes here: %v", err)
	}
	c := delegated(top)
	if c == nil {
		t.Fatalf("not delegated: controllers %q", readFile(top, "cgroup.controllers"))
	}

	old := filepath.Join(top, cgroupPrefix+"old")
	if err := os.Mkdir(old, 0o700); err != nil {
		t.Fatal(err)
	}
	if delegated(top); exists(old) {
		t.Error("what an earlier daemon left is still there")
	}

	cmd := exec.CommandContext(t.Context(), "sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	leave := c.enter(cmd.SysProcAttr, &recipe{Memory: size.GiB, VCPUs: 2})
	err := cmd.Start()
	leave(err == nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := openProcess(cmd.Process.Pid, cmd.Process)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	if filepath.Dir(p.cgroup) != top {
		t.Fatalf("it is in %q", p.cgroup)
	}
	for name, want := range map[string]string{"memory.max": strconv.FormatInt(int64(size.GiB+overhead), 10), "pids.max": "256", "cpu.max": "300000 100000"} {
		if got := strings.TrimSpace(string(readFile(p.cgroup, name))); got != want && exists(filepath.Join(p.cgroup, name)) {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if !exists(filepath.Join(p.cgroup, "memory.max")) {
		t.Error("its memory has no limit")
	}
	if err := p.kill(); err != nil {
		t.Error(err)
	}
	if _, err := p.wait(); err != nil {
		t.Error(err)
	}
	p.removeCgroup()
	if exists(p.cgroup) {
		t.Error("its group is left")
	}

	// Where a process sits in the group itself, the kernel would not let it be divided.
	sitting := exec.CommandContext(t.Context(), "sleep", "1000")
	if err := sitting.Start(); err != nil {
		t.Fatal(err)
	}
	_ = writeFile(top, "cgroup.subtree_control", "-memory -pids -cpu")
	if err := writeFile(top, "cgroup.procs", strconv.Itoa(sitting.Process.Pid)); err != nil {
		t.Error(err)
	} else if delegated(top) != nil {
		t.Error("a group with processes in it is divided")
	}
	_ = sitting.Process.Kill() // it runs
	_ = sitting.Wait()
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// TestOwnNumbers: VMs of a daemon that is root are users of their own, unless the user has
// named one.
func TestOwnNumbers(t *testing.T) {
	if os.Geteuid() != 0 || !mapped("/proc/self/uid_map", lastOwn) {
		t.Skip("only root of all numbers gives them out")
	}
	a, err := findAccount("")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[uint32]bool{}
	for range 100 {
		id := a.attributes(TCG).Credential.Uid
		if id < firstOwn || id > lastOwn || seen[id] {
			t.Fatalf("user %d", id)
		}
		seen[id] = true
	}
	named, err := findAccount("nobody")
	if err != nil {
		t.Fatal(err)
	}
	if id := named.attributes(TCG).Credential.Uid; id != named.uid || id >= firstOwn {
		t.Errorf("the user's own account is %d", id)
	}
}
