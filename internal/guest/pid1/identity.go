//go:build linux

package pid1

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// gateway is the host's end of the network of every VM, and its name server.
const gateway = "192.168.127.1"

const (
	bootIDPath = "/proc/sys/kernel/random/boot_id"
	ownBootID  = "/run/aegis/boot_id"
)

// writeDefaults makes the files of /etc that programs expect, where the image has
// none; Identify writes their real contents.
func writeDefaults() error {
	for path, content := range map[string]string{
		"/etc/hostname":   "localhost\n",
		"/etc/machine-id": strings.Repeat("0", 32) + "\n",
		"/etc/hosts":      hosts("localhost"),
	} {
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			if err := replaceFile(path, content); err != nil {
				return err
			}
		}
	}
	return nil
}

func hosts(hostname string) string {
	text := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
	if hostname != "localhost" {
		text += "127.0.1.1\t" + hostname + "\n"
	}
	return text
}

// replaceFile writes a file of /etc, unless it has that content already. A symbolic
// link is replaced: images point resolv.conf to programs that do not run here.
func replaceFile(path, content string) error {
	if fi, err := os.Lstat(path); err == nil {
		old, readErr := os.ReadFile(path)
		switch {
		case !fi.Mode().IsRegular():
			if err := os.Remove(path); err != nil {
				return err
			}
		case readErr == nil && string(old) == content:
			return nil
		}
	} else if err := os.MkdirAll("/etc", 0o755); err != nil { //nolint:gosec // /etc is for all
		return err
	}
	return overwrite(path, content, 0o644)
}

// overwrite writes a file from its beginning, and cuts off what is behind. That is half
// the work of cutting it off first, where it is there already.
func overwrite(path, content string, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, mode)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	if fi, statErr := f.Stat(); err == nil && statErr == nil && fi.Size() > int64(len(content)) {
		err = f.Truncate(int64(len(content)))
	}
	return errors.Join(err, f.Close())
}

// Identify implements server.System.
func (m *machine) Identify(id guestproto.Identity) error {
	m.identity.Lock()
	defer m.identity.Unlock()
	if id.Hostname != "" {
		if strings.ContainsAny(id.Hostname, " \t\n") {
			return fmt.Errorf("bad hostname %q", id.Hostname)
		}
		if err := unix.Sethostname([]byte(id.Hostname)); err != nil {
			return fmt.Errorf("set the hostname: %w", err)
		}
		if err := errors.Join(replaceFile("/etc/hostname", id.Hostname+"\n"), replaceFile("/etc/hosts", hosts(id.Hostname))); err != nil {
			return err
		}
	}
	if id.MachineID != "" {
		if err := replaceFile("/etc/machine-id", id.MachineID+"\n"); err != nil {
			return err
		}
	}
	servers := id.Nameservers
	if len(servers) == 0 {
		servers = []string{gateway}
	}
	resolv := "nameserver " + strings.Join(servers, "\nnameserver ") + "\n"
	if err := replaceFile("/etc/resolv.conf", resolv); err != nil {
		return err
	}
	if id.BootID != "" {
		if err := m.setBootID(id.BootID); err != nil {
			return err
		}
	}
	// A template has no connections. From here on this machine may be the source of others.
	pristine := m.template && !m.identified
	m.identified = true
	if id.Clone && !pristine {
		if err := destroySockets(func(socket) bool { return true }); err != nil {
			console("end the source's connections: %v", err) // they end when a packet is answered with RST
		}
	}
	return nil
}

// setBootID gives the machine a boot id of its own: the kernel's is that of the
// template.
func (m *machine) setBootID(id string) error {
	if m.bootID { // in the file that is mounted already
		return overwrite(ownBootID, id+"\n", 0o444)
	}
	if err := os.MkdirAll("/run/aegis", 0o755); err != nil { //nolint:gosec // for all to read
		return err
	}
	if err := overwrite(ownBootID, id+"\n", 0o444); err != nil {
		return err
	}
	if err := unix.Mount(ownBootID, bootIDPath, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("set the boot id: %w", err)
	}
	m.bootID = true
	return nil
}
