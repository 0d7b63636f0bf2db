//go:build linux

package pid1

import (
	"encoding/binary"
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
	if err := up(fd, "eth0"); err != nil {
		return err
	}
	return addDefaultRoute(fd)
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

// destroySockets ends every TCP connection of the machine, as `ss -K` does: those
// of a clone belong to its source. Listeners stay.
func destroySockets() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_INET_DIAG)
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // nothing is buffered
	for seq, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		socks, err := dumpSockets(fd, uint32(seq)+1, family) //nolint:gosec // 0 or 1
		if err != nil {
			return err
		}
		for _, id := range socks {
			// One that fails, as for a connection that has just ended, has number 0: the
			// next dump reads over it.
			if err := diag(fd, sockDestroy, unix.NLM_F_REQUEST, 0, family, id); err != nil {
				return err
			}
		}
	}
	return nil
}

// From linux/sock_diag.h and linux/inet_diag.h.
const (
	sockDiagByFamily = 20
	sockDestroy      = 21
	sockIDSize       = 48
	diagReqSize      = 8 + sockIDSize
	tcpListen        = 10
	tcpTimeWait      = 6
	allStates        = 0xfff
)

// diag sends one inet_diag_req_v2.
func diag(fd int, kind, flags uint16, seq uint32, family byte, id []byte) error {
	e := binary.NativeEndian
	m := e.AppendUint32(nil, unix.NLMSG_HDRLEN+diagReqSize)
	m = e.AppendUint16(m, kind)
	m = e.AppendUint16(m, flags)
	m = e.AppendUint32(m, seq)
	m = e.AppendUint32(m, 0) // port
	m = append(m, family, unix.IPPROTO_TCP, 0, 0)
	m = e.AppendUint32(m, allStates&^(1<<tcpListen|1<<tcpTimeWait))
	m = append(m, id...)
	return unix.Sendto(fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// dumpSockets returns the identities of the connections of a family.
func dumpSockets(fd int, seq uint32, family byte) ([][]byte, error) {
	if err := diag(fd, sockDiagByFamily, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, seq, family, make([]byte, sockIDSize)); err != nil {
		return nil, err
	}
	var ids [][]byte
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return nil, err
		}
		for b := buf[:n]; len(b) >= unix.NLMSG_HDRLEN; {
			size := int(binary.NativeEndian.Uint32(b))
			if size < unix.NLMSG_HDRLEN || size > len(b) {
				break
			}
			switch kind := binary.NativeEndian.Uint16(b[4:]); {
			case binary.NativeEndian.Uint32(b[8:]) != seq: // of a request before
			case kind == unix.NLMSG_DONE:
				return ids, nil
			case kind == unix.NLMSG_ERROR && size >= unix.NLMSG_HDRLEN+4:
				// A kernel that cannot look for connections of that family has no other answer.
				errno := unix.Errno(-int32(binary.NativeEndian.Uint32(b[unix.NLMSG_HDRLEN:]))) //nolint:gosec // as the kernel means it
				return nil, fmt.Errorf("list connections: %w", errno)
			case kind == sockDiagByFamily && size >= unix.NLMSG_HDRLEN+4+sockIDSize:
				// struct inet_diag_msg: four bytes, then the identity.
				ids = append(ids, append([]byte(nil), b[unix.NLMSG_HDRLEN+4:unix.NLMSG_HDRLEN+4+sockIDSize]...))
			}
			b = b[min(len(b), (size+3)&^3):]
		}
	}
}
