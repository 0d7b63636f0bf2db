package libkrun

import (
	"bufio"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/vmm/libkrun/recipe"
)

const (
	accel       = "kvm"
	libraryName = "libkrun.so.1"

	installHint = "install libkrun from your distribution (Fedora and Debian sid have it as libkrun1 or libkrun)"

	// accountName is the user that packages create for VMMs.
	accountName = "aegis-vm"
	// accountID is used without one: no distribution gives it out, and it is mapped
	// in containers, which have the first 65536 ids.
	accountID = 65527
)

// libraries are tried in this order. The dynamic loader knows where packages install
// them; not all builds from source are where it looks.
var libraries = []string{libraryName, "/usr/local/lib64/" + libraryName, "/usr/local/lib/" + libraryName}

// environment is a worker's.
func environment() []string { return []string{"PATH=/usr/bin:/bin", "LC_ALL=C"} }

// findAccount returns the account that VMs become, or nil to run them as the user that
// this process is.
func findAccount(name string) (*recipe.Account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	wanted := name
	if wanted == "" {
		wanted = accountName
	}
	a := &recipe.Account{UID: accountID, GID: accountID}
	if u, err := user.Lookup(wanted); err == nil {
		uid, errUID := strconv.ParseUint(u.Uid, 10, 32)
		gid, errGID := strconv.ParseUint(u.Gid, 10, 32)
		if errUID != nil || errGID != nil {
			return nil, fmt.Errorf("user %s has ids %s and %s", wanted, u.Uid, u.Gid)
		}
		a = &recipe.Account{UID: uint32(uid), GID: uint32(gid)}
	} else if name != "" {
		return nil, fault.Wrap(fault.NotFound, err, "account for VMs").By(fault.Host).
			WithHint("sudo useradd --system --shell /usr/sbin/nologin %s", name)
	}
	if !mapped("/proc/self/uid_map", a.UID) || !mapped("/proc/self/gid_map", a.GID) {
		// Root of a user namespace that has no such user is nobody in particular.
		return nil, nil
	}
	return a, nil
}

// mapped tells whether an id exists in this user namespace.
func mapped(path string, id uint32) bool {
	f, err := os.Open(path)
	if err != nil {
		return true // a kernel without user namespaces
	}
	defer f.Close() //nolint:errcheck // only read
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var first, outside, count uint64
		if n, _ := fmt.Sscan(lines.Text(), &first, &outside, &count); n == 3 && uint64(id) >= first && uint64(id)-first < count {
			return true
		}
	}
	return false
}

// attributes returns what a worker is started with: a session of its own, so that
// Ctrl-C in the daemon's terminal is not for it, and no parent-death signal. One that
// becomes an account has the groups of that from the start.
func attributes(a *recipe.Account) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setsid: true}
	if a != nil {
		attr.Credential = &syscall.Credential{Groups: kvmGroups()}
	}
	return attr
}

// kvmGroups returns the groups an account needs to open /dev/kvm: root's group never.
func kvmGroups() []uint32 {
	var st unix.Stat_t
	if unix.Stat(kvmDevice, &st) != nil || st.Mode&0o060 != 0o060 || st.Gid == 0 {
		return nil
	}
	return []uint32{st.Gid}
}

// lend gives the worker a file, which libkrun opens again as whoever it is then, and
// returns the path under which it does.
func (l *launch) lend(d *Driver, f *os.File) (string, error) {
	fi, err := f.Stat()
	if err != nil {
		return "", err
	}
	if d.account != nil && fi.Mode().Perm()&0o004 == 0 {
		c, err := d.copies.open(f)
		if err != nil {
			return "", err
		}
		closeAll(f)
		f = c
	}
	return fmt.Sprintf("/proc/self/fd/%d", l.inherit(f)), nil
}
