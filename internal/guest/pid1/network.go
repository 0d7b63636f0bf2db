//go:build linux

package pid1

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Every VM has a network of its own, so all have the same addresses: a clone needs
// nothing reconfigured.
const (
	address = "192.168.127.2"
	netmask = "255.255.255.0"
	mtu     = 65520
)

// setUpNetwork brings up lo, and eth0 if there is a card.
func setUpNetwork() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // only ioctls were made on it
	if err := up(fd, "lo"); err != nil {
		return err
	}
	if _, err := os.Stat("/sys/class/net/eth0"); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := setMTU(fd, "eth0"); err != nil {
		return err
	}
	for _, a := range []struct {
		request uint
		addr    string
	}{{unix.SIOCSIFADDR, address}, {unix.SIOCSIFNETMASK, netmask}} {
		ifr, err := unix.NewIfreq("eth0")
		if err != nil {
			return err
		}
		ip := netip.MustParseAddr(a.addr).As4()
		if err := ifr.SetInet4Addr(ip[:]); err != nil {
			return err
		}
		if err := unix.IoctlIfreq(fd, a.request, ifr); err != nil {
			return fmt.Errorf("set %s of eth0: %w", a.addr, err)
		}
	}
	if err := prepareIPv6("eth0"); err != nil {
		return err
	}
	if err := up(fd, "eth0"); err != nil {
		return err
	}
	return errors.Join(addDefaultRoute(fd), setUpIPv6("eth0"))
}

func setMTU(fd int, name string) error {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	ifr.SetUint32(mtu)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFMTU, ifr); err != nil {
		return fmt.Errorf("set the MTU of %s: %w", name, err)
	}
	return nil
}

func up(fd int, name string) error {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, ifr); err != nil {
		return fmt.Errorf("flags of %s: %w", name, err)
	}
	ifr.SetUint16(ifr.Uint16() | unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("bring up %s: %w", name, err)
	}
	return nil
}

// rtentry is struct rtentry of linux/route.h on 64-bit systems.
type rtentry struct {
	_       uint64
	dst     unix.RawSockaddrInet4
	gateway unix.RawSockaddrInet4
	genmask unix.RawSockaddrInet4
	flags   uint16
	_       [6]byte
	_       uint64
	_       [8]byte
	metric  int16
	_       [6]byte
	dev     *byte
	mtu     uint64
	window  uint64
	irtt    uint16
	_       [6]byte
}

// rtentrySize is checked by a test: the kernel reads that much.
const rtentrySize = unsafe.Sizeof(rtentry{})

func addDefaultRoute(fd int) error {
	inet := func(addr string) unix.RawSockaddrInet4 {
		return unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: netip.MustParseAddr(addr).As4()}
	}
	route := rtentry{
		dst: inet("0.0.0.0"), genmask: inet("0.0.0.0"), gateway: inet(gateway),
		flags: unix.RTF_UP | unix.RTF_GATEWAY,
	}
	//nolint:gosec // the ioctl takes a pointer
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCADDRT, uintptr(unsafe.Pointer(&route))); errno != 0 && errno != unix.EEXIST {
		return fmt.Errorf("add the default route: %w", errno)
	}
	return nil
}
