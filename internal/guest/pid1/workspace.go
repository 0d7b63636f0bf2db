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
	for _, p := range req.Mounts {
		if err := mountExport(p); err != nil {
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

func mountExport(p guestproto.MountPoint) error {
	if !path.IsAbs(p.Export) || !path.IsAbs(p.Target) || path.Clean(p.Target) == "/" {
		return &guestproto.Error{Code: guestproto.CodeInvalid, Msg: fmt.Sprintf("cannot mount %q on %q", p.Export, p.Target)}
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	source, target := gateway+":"+p.Export, path.Clean(p.Target)
	if mountedOn(string(table), target) == source {
		return nil
	}
	if err := mountPoint(target); err != nil {
		return &guestproto.Error{Code: guestproto.CodeInvalid, Msg: err.Error()}
	}
	var flags uintptr = unix.MS_NODEV
	if p.ReadOnly {
		flags |= unix.MS_RDONLY
	}
	if err := unix.Mount(source, target, "nfs", flags, nfsOptions); err != nil {
		return &guestproto.Error{Code: mountCode(err), Msg: fmt.Sprintf("mount a folder of the host on %s: %v", target, err)}
	}
	return nil
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
