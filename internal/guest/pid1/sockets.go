//go:build linux

package pid1

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// socket is struct inet_diag_sockid: ports u16 of this end and of the other, addresses
// of 16 bytes, and what tells it from others.
type socket []byte

// peer returns the other end, for IPv4.
func (s socket) peer() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(s[20:24])), binary.BigEndian.Uint16(s[2:]))
}

// destroySockets ends TCP connections of the machine, as `ss -K` does. Listeners stay.
func destroySockets(which func(socket) bool) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_INET_DIAG)
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // nothing is buffered
	d := &diag{fd: fd}
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		socks, err := d.do(sockDiagByFamily, unix.NLM_F_DUMP, family, make([]byte, sockIDSize))
		if err != nil {
			return fmt.Errorf("list connections: %w", err)
		}
		for _, s := range socks {
			if !which(s) {
				continue
			}
			// One that has ended by itself meanwhile is not there.
			if _, err := d.do(sockDestroy, unix.NLM_F_ACK, family, s); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("end a connection: %w", err)
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

// diag is a conversation with the kernel about sockets.
type diag struct {
	fd  int
	seq uint32 // of the last request
}

// do sends one inet_diag_req_v2, and returns the sockets in the answer.
func (d *diag) do(kind, flags uint16, family byte, id []byte) ([]socket, error) {
	d.seq++
	e := binary.NativeEndian
	m := e.AppendUint32(nil, unix.NLMSG_HDRLEN+diagReqSize)
	m = e.AppendUint16(m, kind)
	m = e.AppendUint16(m, flags|unix.NLM_F_REQUEST)
	m = e.AppendUint32(m, d.seq)
	m = append(m, 0, 0, 0, 0) // port
	m = append(m, family, unix.IPPROTO_TCP, 0, 0)
	m = e.AppendUint32(m, allStates&^(1<<tcpListen|1<<tcpTimeWait))
	m = append(m, id...)
	if err := unix.Sendto(d.fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	var found []socket
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(d.fd, buf, 0)
		if err != nil {
			return nil, err
		}
		socks, done, err := parseDiag(buf[:n], d.seq)
		found = append(found, socks...)
		if done || err != nil {
			return found, err
		}
	}
}

// parseDiag reads what the kernel answers to request seq: sockets, and the end or an
// error. Answers to earlier requests are passed over.
func parseDiag(b []byte, seq uint32) (socks []socket, done bool, err error) {
	e := binary.NativeEndian
	for len(b) >= unix.NLMSG_HDRLEN {
		size := int(e.Uint32(b))
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			break
		}
		body := b[unix.NLMSG_HDRLEN:size]
		kind, of := e.Uint16(b[4:]), e.Uint32(b[8:])
		b = b[min(len(b), (size+3)&^3):]
		switch {
		case of != seq:
		case kind == unix.NLMSG_ERROR && len(body) >= 4:
			if code := int32(e.Uint32(body)); code != 0 { //nolint:gosec // a negative errno
				return socks, true, unix.Errno(-code) //nolint:gosec // as above
			}
			return socks, true, nil
		case kind == unix.NLMSG_DONE:
			return socks, true, nil
		case kind == sockDiagByFamily && len(body) >= 4+sockIDSize:
			// struct inet_diag_msg: four bytes, then the identity.
			socks = append(socks, append(socket(nil), body[4:4+sockIDSize]...))
		}
	}
	return socks, false, nil
}
