package qemu

import (
	"bufio"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/fault"
)

const (
	// accountName is the user that packages create for VMMs. They have its group.
	accountName = "aegis-vm"
	// accountID is used without one: no distribution gives it out, and it is mapped
	// in containers, which have the first 65536 ids.
	accountID = 65527
)

// Numbers of users that nobody gives out: they are above those for containers and
// subordinate users, and below those that are negative somewhere (UIDS-GIDS of systemd).
const (
	firstOwn = 0x70000000
	lastOwn  = 0x70ffffff
)

// account is the unprivileged user of VMM processes. With own, each has another number
// instead of uid: two VMs of one user could trace and signal each other.
type account struct {
	uid, gid uint32
	own      bool
}

// findAccount returns the account to run VMMs as, or nil to run them as the user
// that this process is.
func findAccount(name string) (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	wanted := name
	if wanted == "" {
		wanted = accountName
	}
	own := name == "" && mapped("/proc/self/uid_map", firstOwn) && mapped("/proc/self/uid_map", lastOwn)
	a := &account{uid: accountID, gid: accountID, own: own}
	if u, err := user.Lookup(wanted); err == nil {
		uid, errUID := strconv.ParseUint(u.Uid, 10, 32)
		gid, errGID := strconv.ParseUint(u.Gid, 10, 32)
		if errUID != nil || errGID != nil {
			return nil, fmt.Errorf("user %s has ids %s and %s", wanted, u.Uid, u.Gid)
		}
		a = &account{uid: uint32(uid), gid: uint32(gid), own: own}
	} else if name != "" {
		return nil, fault.Wrap(fault.NotFound, err, "account for VMs").By(fault.Host).
			WithHint("sudo useradd --system --shell /usr/sbin/nologin %s", name)
	}
	if !mapped("/proc/self/uid_map", a.uid) || !mapped("/proc/self/gid_map", a.gid) {
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

// attributes returns what a VMM is started with: a session of its own, so that
// Ctrl-C in the daemon's terminal is not for it, and no parent-death signal.
func (a *account) attributes(accel Accel) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setsid: true}
	if a != nil {
		attr.Credential = &syscall.Credential{Uid: a.number(), Gid: a.gid, Groups: kvmGroups(accel)}
	}
	return attr
}

// number returns the user of the next process: by chance, as an earlier daemon's run too.
func (a *account) number() uint32 {
	if !a.own {
		return a.uid
	}
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	return firstOwn + binary.LittleEndian.Uint32(b[:])%(lastOwn-firstOwn+1)
}

// kvmGroups returns the groups an account needs to open /dev/kvm: root's group
// never.
func kvmGroups(accel Accel) []uint32 {
	var st unix.Stat_t
	if accel != KVM || unix.Stat(kvmDevice, &st) != nil || st.Mode&0o060 != 0o060 || st.Gid == 0 {
		return nil
	}
	return []uint32{st.Gid}
}

// mayRead tells whether the account can open a file whose descriptor it holds.
func (a *account) mayRead(fi os.FileInfo) bool {
	return a == nil || fi.Mode().Perm()&0o004 != 0
}
