package host

import (
	"bufio"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/fault"
)

const (
	// KVMDevice is how the kernel gives hardware virtualization to programs.
	KVMDevice = "/dev/kvm"

	// accountName is the user that packages create for VMMs.
	accountName = "aegis-vm"
	// accountID is used without one: no distribution gives it out, and it is mapped
	// in containers, which have the first 65536 ids.
	accountID = 65527
)

// Account is the unprivileged user of VMM processes.
type Account struct{ UID, GID uint32 }

// FindAccount returns the account to run VMMs as, or nil to run them as the user
// that this process is.
func FindAccount(name string) (*Account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	wanted := name
	if wanted == "" {
		wanted = accountName
	}
	a := &Account{UID: accountID, GID: accountID}
	if u, err := user.Lookup(wanted); err == nil {
		uid, errUID := strconv.ParseUint(u.Uid, 10, 32)
		gid, errGID := strconv.ParseUint(u.Gid, 10, 32)
		if errUID != nil || errGID != nil {
			return nil, fmt.Errorf("user %s has ids %s and %s", wanted, u.Uid, u.Gid)
		}
		a = &Account{UID: uint32(uid), GID: uint32(gid)}
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

// Attributes returns what a VMM is started with: a session of its own, so that
// Ctrl-C in the daemon's terminal is not for it, and no parent-death signal.
func (a *Account) Attributes(kvm bool) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setsid: true}
	if a != nil {
		attr.Credential = &syscall.Credential{Uid: a.UID, Gid: a.GID, Groups: kvmGroups(kvm)}
	}
	return attr
}

// kvmGroups returns the groups an account needs to open /dev/kvm: root's group
// never.
func kvmGroups(kvm bool) []uint32 {
	var st unix.Stat_t
	if !kvm || unix.Stat(KVMDevice, &st) != nil || st.Mode&0o060 != 0o060 || st.Gid == 0 {
		return nil
	}
	return []uint32{st.Gid}
}

// LetRead makes a file one that the account can open again through a descriptor of it,
// for reading. Only whoever holds a descriptor gets so far: the folders above it are
// closed to the account.
func (a *Account) LetRead(f *os.File) error {
	if a == nil {
		return nil
	}
	fi, err := f.Stat()
	if err != nil || fi.Mode().Perm()&0o004 != 0 {
		return err
	}
	return f.Chmod(fi.Mode().Perm() | 0o004)
}

// Give makes a file or folder the account's own.
func (a *Account) Give(f *os.File) error {
	if a == nil {
		return nil
	}
	return f.Chown(int(a.UID), int(a.GID))
}
