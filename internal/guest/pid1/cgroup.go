//go:build linux

package pid1

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// cgroupRoot holds one cgroup for each exec.
const cgroupRoot = "/sys/fs/cgroup/aegis"

func makeCgroups() error {
	if err := os.Mkdir(cgroupRoot, 0o755); err != nil { //nolint:gosec // readable like the rest of /sys
		return fmt.Errorf("make the cgroup of user processes: %w", err)
	}
	// With the memory controller the kernel says which exec a process it killed for
	// memory belonged to. Without it everything else works.
	for _, dir := range []string{"/sys/fs/cgroup", cgroupRoot} {
		if err := writeFile(dir+"/cgroup.subtree_control", "+memory"); err != nil {
			console("%v", err)
			break
		}
	}
	return nil
}

// writeFile writes to a file of the kernel's, which exists.
func writeFile(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// cgroup is where the processes of one exec live.
type cgroup struct {
	path string
	dir  *os.File
}

func newCgroup(id guestproto.ExecID) (*cgroup, error) {
	path := filepath.Join(cgroupRoot, string(id))
	// One may be left from an exec of that name whose processes would not die.
	for i := 1; ; i++ {
		err := os.Mkdir(path, 0o755) //nolint:gosec // readable like the rest of /sys
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrExist) || i > 10 {
			return nil, fmt.Errorf("make a cgroup: %w", err)
		}
		path = filepath.Join(cgroupRoot, fmt.Sprintf("%s.%d", id, i))
	}
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return &cgroup{path: path, dir: dir}, nil
}

// kill signals every process in the cgroup and below.
func (c *cgroup) kill(sig unix.Signal) error {
	if sig == unix.SIGKILL {
		return writeFile(c.path+"/cgroup.kill", "1")
	}
	for _, pid := range processes(c.path) {
		if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

const (
	// deathPatience bounds the wait for killed processes to be gone. One that is
	// stuck in the kernel stays; its cgroup with it.
	deathPatience = 2 * time.Second
	deathInterval = time.Millisecond
)

// remove kills what is left and removes the cgroup. It reports whether all died.
func (c *cgroup) remove() bool {
	defer c.dir.Close() //nolint:errcheck // nothing is buffered
	// The kernel removes one that has nothing in it, and no other.
	if unix.Rmdir(c.path) == nil || c.empty() && removeTree(c.path) == nil {
		return true
	}
	_ = c.kill(unix.SIGKILL) // the loop sees whether it worked
	late := time.NewTimer(deathPatience)
	defer late.Stop()
	tick := time.NewTicker(deathInterval)
	defer tick.Stop()
	for {
		if c.empty() && removeTree(c.path) == nil {
			return true
		}
		select {
		case <-tick.C:
		case <-late.C:
			return false
		}
	}
}

func (c *cgroup) empty() bool {
	return event(c.path, "populated") == "0"
}

// event returns a value of cgroup.events.
func event(path, key string) string { return value(path+"/cgroup.events", key) }

// value returns a value of a flat keyed file, or "".
func value(file, key string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, key+" "); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// removeTree removes a cgroup and those that programs have made in it.
func removeTree(path string) error {
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(path, e.Name())); err != nil {
				return err
			}
		}
	}
	return unix.Rmdir(path)
}

// processes lists the processes in a cgroup and below.
func processes(path string) []int {
	var pids []int
	_ = filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "cgroup.procs" {
			return nil //nolint:nilerr // cgroups come and go meanwhile
		}
		b, err := os.ReadFile(p) //nolint:gosec // the kernel has no links in there
		if err != nil {
			return nil //nolint:nilerr // as above
		}
		for line := range strings.FieldsSeq(string(b)) {
			if pid, err := strconv.Atoi(line); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids
}

func freezeCgroup(on bool) error {
	v := "0"
	if on {
		v = "1"
	}
	return writeFile(cgroupRoot+"/cgroup.freeze", v)
}

// awaitFrozen waits until all user processes have stopped. It returns those that did
// not in time.
func awaitFrozen(deadline time.Duration) ([]string, error) {
	events, err := os.Open(cgroupRoot + "/cgroup.events")
	if err != nil {
		return nil, err
	}
	defer events.Close() //nolint:errcheck // read only
	for end := time.Now().Add(deadline); event(cgroupRoot, "frozen") != "1"; {
		left := time.Until(end)
		if left <= 0 {
			return unfrozen(), nil
		}
		// The kernel says POLLPRI when the file changes; one that changed before the
		// open is caught by the short timeout.
		fds := []unix.PollFd{{Fd: int32(events.Fd()), Events: unix.POLLPRI}} //nolint:gosec // a descriptor
		if _, err := unix.Poll(fds, int(min(left, 10*time.Millisecond).Milliseconds())+1); err != nil && !errors.Is(err, unix.EINTR) {
			return nil, err
		}
	}
	return nil, nil
}

// unfrozen lists the processes that are in uninterruptible sleep.
func unfrozen() []string {
	var out []string
	for _, pid := range processes(cgroupRoot) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue // it has ended
		}
		if name, state, ok := parseStat(string(b)); ok && state == 'D' {
			out = append(out, fmt.Sprintf("%d %s", pid, name))
		}
	}
	return out
}

// parseStat returns the name and the state in a line of /proc/*/stat. The name may
// hold anything, parentheses too.
func parseStat(line string) (name string, state byte, ok bool) {
	open, end := strings.IndexByte(line, '('), strings.LastIndexByte(line, ')')
	if open < 0 || end < open || len(line) < end+3 {
		return "", 0, false
	}
	return line[open+1 : end], line[end+2], true
}
