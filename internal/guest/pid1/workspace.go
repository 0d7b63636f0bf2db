//go:build linux

package pid1

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// nfsOptions is how folders of the host are mounted. They survive any pause, and a host
// that is away for long: requests wait for ever (hard). What the host changes is seen
// after a second: nothing is believed longer (actimeo), nor that a file is not there
// (lookupcache). What has had no answer for ten seconds (timeo) is asked again, which
// finds a connection whose other end has died. Locks are the guest's own: there is no
// other client.
const nfsOptions = "addr=" + gateway + ",vers=3,proto=tcp,nolock,noacl,hard,port=2049," +
	"mountport=2049,mountproto=tcp,mountvers=3,lookupcache=positive,actimeo=1,timeo=100,rsize=1048576,wsize=1048576"

// Mount implements server.System.
func (m *machine) Mount(req guestproto.Mount) error {
	m.mounting.Lock() // one request at a time: each looks first at what is there
	defer m.mounting.Unlock()
	if err := m.prepareMounts(); err != nil {
		return err
	}
	if req.Reconnect {
		server := netip.AddrPortFrom(netip.MustParseAddr(gateway), guestproto.MountPort)
		if err := destroySockets(func(s socket) bool { return s.peer() == server }); err != nil {
			console("end connections to the old server: %v", err) // they end when they have been silent for long
		}
	}
	defer m.hangUp()
	for _, p := range req.Mounts {
		there, err := m.mountExport(p)
		if err == nil && there {
			err = remountExport(p)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// prepareMounts does what has to be done once before folders can be mounted, and need
// not be done again in a clone. The caller holds mounting.
func (m *machine) prepareMounts() error {
	if m.mountable {
		return nil
	}
	if err := m.modules.load("workspace"); err != nil {
		return err
	}
	if err := os.WriteFile("/proc/sys/vm/dirty_writeback_centisecs", []byte(writeback), 0); err != nil {
		console("write files back each second: %v", err) // it stays at five
	}
	m.mountable = true
	return nil
}

// writeback is how often the kernel looks for dirty data that is to go to the host, in
// hundredths of a second: the host sees what a program writes to a file that it keeps
// open after this time. Data on disks waits for longer all the same
// (dirty_expire_centisecs), and while nothing is dirty nobody looks.
const writeback = "100"

// hangUp ends the connections of a template: its clones make their own.
func (m *machine) hangUp() {
	m.identity.Lock()
	defer m.identity.Unlock()
	if m.template && !m.identified {
		if err := destroySockets(func(socket) bool { return true }); err != nil {
			console("end the template's connections: %v", err) // they end when a packet is answered with RST
		}
	}
}

// remountExport makes what was mounted already what is asked for: a template has its
// workspace mounted for writing. What the guest knows of the folder of the template, which
// was empty, it believes for a second at most, as it does of any folder.
func remountExport(p guestproto.MountPoint) error {
	if !p.ReadOnly {
		return nil
	}
	target := path.Clean(p.Target)
	if err := unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_NODEV|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("mount %s for reading only: %w", target, err)
	}
	return nil
}

// mountExport mounts a folder of the host, and reports whether it was mounted before.
func (m *machine) mountExport(p guestproto.MountPoint) (there bool, err error) {
	if !path.IsAbs(p.Export) || !path.IsAbs(p.Target) || path.Clean(p.Target) == "/" {
		return false, &guestproto.Error{Code: guestproto.CodeInvalid, Msg: fmt.Sprintf("cannot mount %q on %q", p.Export, p.Target)}
	}
	source, target := gateway+":"+p.Export, path.Clean(p.Target)
	if known, ok := m.mounts[target]; ok && known == (mounted{source, mountID(target)}) {
		return true, nil // to read the table of mounts takes long
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false, err
	}
	if mountedOn(string(table), target) == source {
		m.noteMount(source, target)
		return true, nil
	}
	if err := mountPoint(target); err != nil {
		return false, &guestproto.Error{Code: guestproto.CodeInvalid, Msg: err.Error()}
	}
	var flags uintptr = unix.MS_NODEV
	if p.ReadOnly {
		flags |= unix.MS_RDONLY
	}
	if err := unix.Mount(source, target, "nfs", flags, nfsOptions); err != nil {
		return false, &guestproto.Error{Code: mountCode(err), Msg: fmt.Sprintf("mount a folder of the host on %s: %v", target, err)}
	}
	m.noteMount(source, target)
	return false, nil
}

// mounted is a mount that this process has made, or found.
type mounted struct {
	source string
	id     uint64 // the kernel's
}

func (m *machine) noteMount(source, target string) {
	if id := mountID(target); id != 0 {
		m.mounts[target] = mounted{source, id}
	}
}

// mountID returns the number of what is mounted on a path, without asking the host. It is
// 0 where the kernel does not tell, before 5.8.
func mountID(path string) uint64 {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC, unix.STATX_MNT_ID, &st); err != nil || st.Mask&unix.STATX_MNT_ID == 0 {
		return 0
	}
	return st.Mnt_id
}

// mountCode says what kind of failure a mount of NFS met.
func mountCode(err error) guestproto.Code {
	switch {
	case errors.Is(err, unix.ENODEV):
		return guestproto.CodeUnsupported // the kernel has no NFS
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EACCES):
		return guestproto.CodeNotFound // the host does not serve that
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ETIMEDOUT), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH):
		return guestproto.CodeUnavailable
	}
	return guestproto.CodeInternal
}

// mountedOn returns the source of the NFS that is mounted on target, by the kernel's
// mountinfo, or "". The last mount hides those before it.
func mountedOn(table, target string) string {
	source := ""
	for line := range strings.Lines(table) {
		// ID, parent, device, root, mount point, options, optional ones, "-", type, source.
		before, after, ok := strings.Cut(line, " - ")
		fields, rest := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(rest) < 2 || unescape(fields[4]) != target {
			continue
		}
		source = ""
		if strings.HasPrefix(rest[0], "nfs") {
			source = unescape(rest[1])
		}
	}
	return source
}

// unescape undoes how the kernel writes blanks in its tables.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
