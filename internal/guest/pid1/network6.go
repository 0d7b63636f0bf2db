//go:build linux

package pid1

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The addresses of IPv6 are unique local ones, and as constant as the others. Whether there
// is a way beyond the gateway is the host's business: it answers at once where there is
// none.
const (
	address6 = "fd61:6567:6973::2"
	gateway6 = "fd61:6567:6973::1"
)

// in6Ifreq is struct in6_ifreq of linux/ipv6.h.
type in6Ifreq struct {
	addr   [16]byte
	prefix uint32
	index  int32
}

// in6Rtmsg is struct in6_rtmsg of linux/ipv6_route.h on 64-bit systems.
type in6Rtmsg struct {
	dst     [16]byte
	src     [16]byte
	gateway [16]byte
	kind    uint32
	dstLen  uint16
	srcLen  uint16
	metric  uint32
	info    uint64
	flags   uint32
	index   int32
}

// The sizes are checked by a test: the kernel reads that much.
const (
	in6IfreqSize = unsafe.Sizeof(in6Ifreq{})
	in6RtmsgSize = unsafe.Sizeof(in6Rtmsg{})
)

// prepareIPv6 keeps the kernel from looking for neighbours and routers of which there are none,
// and from waiting a second with each address. It comes before the card is up; a kernel
// without IPv6 is left alone.
func prepareIPv6(card string) error {
	for _, s := range [][2]string{{"accept_dad", "0"}, {"dad_transmits", "0"}, {"accept_ra", "0"}, {"autoconf", "0"}, {"addr_gen_mode", "1"}} {
		err := os.WriteFile("/proc/sys/net/ipv6/conf/"+card+"/"+s[0], []byte(s[1]), 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// setUpIPv6 gives a card that is up its address and the default route.
func setUpIPv6(card string) error {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // only ioctls were made on it
	nic, err := net.InterfaceByName(card)
	if err != nil {
		return err
	}
	index := int32(nic.Index) //nolint:gosec // a small number
	addr := in6Ifreq{addr: netip.MustParseAddr(address6).As16(), prefix: 64, index: index}
	//nolint:gosec // the ioctl takes a pointer
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFADDR, uintptr(unsafe.Pointer(&addr))); errno != 0 && errno != unix.EEXIST {
		if errno == unix.EACCES || errno == unix.EOPNOTSUPP { // it is switched off on the kernel's command line
			return nil
		}
		return fmt.Errorf("set %s of %s: %w", address6, card, errno)
	}
	route := in6Rtmsg{gateway: netip.MustParseAddr(gateway6).As16(), metric: 1024, flags: unix.RTF_UP | unix.RTF_GATEWAY, index: index}
	//nolint:gosec // as above
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCADDRT, uintptr(unsafe.Pointer(&route))); errno != 0 && errno != unix.EEXIST {
		return fmt.Errorf("add the default route of IPv6: %w", errno)
	}
	return nil
}
