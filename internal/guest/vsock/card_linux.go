package vsock

import (
	"bufio"
	"fmt"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// tunDevice makes network devices.
const tunDevice = "/dev/net/tun"

// OpenCard makes a network card of that name and hardware address, whose frames go
// to whoever connects to the vsock port. It is there when OpenCard returns, and for
// the life of the VM; while nobody is connected its frames are lost, as on a cable
// without an end.
func OpenCard(name string, address [6]byte, port uint32) error {
	l, err := listen(port)
	if err != nil {
		return err
	}
	tap, err := openTap(name, address)
	if err != nil {
		return err
	}
	c := &card{tap: tap}
	go c.send()   // for the life of the VM
	go c.serve(l) // likewise
	return nil
}

// card moves frames between a tap device and a connection.
type card struct {
	tap  *os.File
	conn atomic.Pointer[os.File] // nil while no host is there
}

// serve takes the host's connections, of which the newest counts.
func (c *card) serve(l *listener) {
	for {
		conn, err := l.accept()
		if err != nil {
			fmt.Fprintln(os.Stderr, "the network card is without a host for good:", err)
			return
		}
		if before := c.conn.Swap(conn); before != nil {
			_ = before.Close() // frees its reader and its writer
		}
		go c.receive(conn) // ends with the connection
	}
}

// receive gives the kernel the frames that the host sends.
func (c *card) receive(conn *os.File) {
	defer conn.Close()                       //nolint:errcheck // it has ended
	defer c.conn.CompareAndSwap(conn, nil)   // another may have taken its place
	r := bufio.NewReaderSize(conn, maxFrame) // many small frames in one read
	buf := make([]byte, maxFrame)
	for {
		frame, err := readFrame(r, buf)
		if err != nil {
			return // the host has gone, or means something else
		}
		// A frame that the kernel does not take is a lost frame: the card may be down.
		_, _ = c.tap.Write(frame)
	}
}

// send gives the host the kernel's frames.
func (c *card) send() {
	buf := make([]byte, headerSize+maxFrame)
	for {
		n, err := c.tap.Read(buf[headerSize:])
		if err != nil {
			fmt.Fprintln(os.Stderr, "the network card sends no more:", err)
			return
		}
		conn := c.conn.Load()
		if conn == nil {
			continue
		}
		putHeader(buf, n)
		if _, err := conn.Write(buf[:headerSize+n]); err != nil {
			_ = conn.Close() // half a frame may have gone; its reader meets the same end
		}
	}
}

// openTap makes a tap device.
func openTap(name string, address [6]byte) (*os.File, error) {
	fd, err := unix.Open(tunDevice, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: tunDevice, Err: err}
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err == nil {
		err = setAddress(name, address)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("make the network card %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}
