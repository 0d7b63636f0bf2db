package qemu

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/size"
)

const (
	cgroupMount  = "/sys/fs/cgroup"
	cgroupPrefix = "vm-"

	// overhead is what a VMM may take beside its guest's memory: translated code, a
	// gigabyte of it at most, caches of disks, and pages of their files. It is there to
	// end a VMM that has run wild, and no budget.
	overhead = 2 * size.GiB
	// maxTasks is far above the threads of QEMU: vCPUs, and at most 64 for the disks.
	maxTasks = 256
	// cpuWeight puts guests behind the daemon, which has 100.
	cpuWeight = 50
)

// cgroups is a part of the cgroup hierarchy that is this daemon's to divide: version 2,
// delegated, and with the daemon itself in a group below it, as a unit with Delegate=yes
// and DelegateSubgroup= makes it. No process is moved, and no group used that was not given:
// elsewhere VMMs have rlimits only.
type cgroups struct{ path string }

// findCgroups returns what is delegated, or nil. It removes what VMMs have left that ended
// while no daemon ran.
func findCgroups() *cgroups {
	own := cgroupOf(os.Getpid())
	if own == "" {
		return nil
	}
	return delegated(filepath.Dir(own))
}

// delegated returns the group at path if it may be divided.
func delegated(path string) *cgroups {
	if !marked(path) || len(bytes.TrimSpace(readFile(path, "cgroup.procs"))) > 0 {
		return nil
	}
	there := strings.Fields(string(readFile(path, "cgroup.controllers")))
	enabled := 0
	for _, c := range []string{"memory", "pids", "cpu"} {
		if slices.Contains(there, c) && writeFile(path, "cgroup.subtree_control", "+"+c) == nil {
			enabled++
		}
	}
	if enabled == 0 {
		return nil
	}
	left, _ := filepath.Glob(filepath.Join(path, cgroupPrefix+"*")) // the pattern is good
	for _, dir := range left {
		_ = os.Remove(dir) // not one that a VMM is in
	}
	return &cgroups{path}
}

// marked tells whether whoever manages the hierarchy has given a group away: systemd says
// so in one of these attributes.
func marked(path string) bool {
	for _, name := range []string{"user.delegate", "trusted.delegate"} {
		value := make([]byte, 8)
		if n, err := unix.Getxattr(path, name, value); err == nil && string(value[:n]) == "1" {
			return true
		}
	}
	return false
}

// enter has a process that is about to be started begin in a group of its own. Whoever
// has started it, or not, calls leave. Without a group the process starts all the same.
func (c *cgroups) enter(sys *syscall.SysProcAttr, r *recipe) (leave func(started bool)) {
	if c == nil {
		return func(bool) {}
	}
	path := filepath.Join(c.path, cgroupPrefix+rand.Text())
	if os.Mkdir(path, 0o700) != nil {
		return func(bool) {}
	}
	for name, value := range map[string]string{
		"memory.max":       strconv.FormatInt(int64(r.Memory+overhead), 10),
		"memory.oom.group": "1",
		"pids.max":         strconv.Itoa(maxTasks),
		"cpu.weight":       strconv.Itoa(cpuWeight),
		"cpu.max":          fmt.Sprintf("%d 100000", (r.vcpus()+1)*100000), // and one for its devices
	} {
		_ = writeFile(path, name, value) // a controller that is not there has no such file
	}
	dir, err := os.Open(path)
	if err != nil {
		_ = os.Remove(path) // nobody is in it
		return func(bool) {}
	}
	sys.UseCgroupFD, sys.CgroupFD = true, int(dir.Fd())
	return func(started bool) {
		_ = dir.Close() // only opened
		if !started {
			_ = os.Remove(path) // as above
		}
	}
}

// cgroupOf returns the folder of a process's group, or "" without version 2.
func cgroupOf(pid int) string {
	var fs unix.Statfs_t
	if unix.Statfs(cgroupMount, &fs) != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC {
		return ""
	}
	rest, ok := bytes.CutPrefix(readFile(fmt.Sprintf("/proc/%d", pid), "cgroup"), []byte("0::/"))
	if !ok {
		return ""
	}
	return filepath.Join(cgroupMount, strings.TrimSuffix(string(rest), "\n"))
}

// ownCgroup returns the group that enter has made for a process, or "".
func ownCgroup(pid int) string {
	if path := cgroupOf(pid); strings.HasPrefix(filepath.Base(path), cgroupPrefix) {
		return path
	}
	return ""
}

// removeCgroup removes the group of a process that has ended.
func (p *process) removeCgroup() {
	if p.cgroup != "" {
		_ = os.Remove(p.cgroup) // the next daemon tries again
	}
}

func readFile(dir, name string) []byte {
	b, _ := os.ReadFile(filepath.Join(dir, name)) // nothing is what is told of a file that is not there
	return b
}

// writeFile writes to a file that exists.
func writeFile(dir, name, value string) error {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}
