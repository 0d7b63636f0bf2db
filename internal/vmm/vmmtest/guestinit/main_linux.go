// Command guestinit is PID 1 of the guests of package vmmtest: it loads the
// modules it finds in /modules, serves the byte pipe, and sends a frame now and
// then.
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/guest/port"
	"github.com/xfeldman/aegisvm/internal/guest/vsock"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/vmm/vmmtest"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "guestinit:", err)
	}
	// PID 1 returns, and the kernel panics: so does a guest whose harness dies.
}

func run() error {
	if err := prepare(); err != nil {
		return err
	}
	pipe, err := openPipe()
	if err != nil {
		return err
	}
	listDisks()
	go sendFrames()                               // for as long as the machine lives
	_, _ = fmt.Fprintln(os.Stdout, "guest is up") // a console that is gone is no reason to die
	guest := vmmtest.Guest{Disk: openDisk}
	word, err := guest.Serve(pipe)
	if err != nil {
		return err
	}
	switch word {
	case vmmtest.PowerOff:
		if line, err := os.ReadFile("/proc/cmdline"); err == nil && strings.Contains(string(line), guestproto.RestartArg) {
			return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
		}
		return unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	case vmmtest.Reboot:
		return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	case vmmtest.Flood:
		return flood()
	case vmmtest.Panic:
	}
	return errors.New("told to die")
}

func prepare() error {
	for target, fs := range map[string]string{"/dev": "devtmpfs", "/sys": "sysfs", "/proc": "proc"} {
		if err := unix.Mount(fs, target, fs, 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", target, err)
		}
	}
	return loadModules("early")
}

func loadModules(set string) error {
	modules, err := filepath.Glob("/modules/" + set + "/*.ko")
	if err != nil {
		return err
	}
	for _, m := range modules { // sorted, which is the order to load them in
		f, err := os.Open(m)
		if err != nil {
			return err
		}
		if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("load %s: %w", m, err)
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

// pipe is the guest's end of the port. A blocking read of it ends at once while
// no host is there.
type pipe struct{ *os.File }

const again = 5 * time.Millisecond

func (p pipe) Read(b []byte) (int, error) {
	for {
		n, err := p.File.Read(b)
		if n > 0 || (err != nil && !errors.Is(err, io.EOF)) {
			return n, err
		}
		<-time.After(again)
	}
}

// openPipe opens the pipe as the VMM has it.
func openPipe() (io.ReadWriter, error) {
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return nil, err
	}
	if args := strings.Fields(string(line)); slices.Contains(args, guestproto.VsockArg) {
		return openVsock(args)
	}
	return openPort()
}

// waiting is a device whose Read waits for the next host.
type waiting struct{ port.Device }

func (w waiting) Read(b []byte) (int, error) {
	for {
		n, err := w.Device.Read(b)
		if !errors.Is(err, port.ErrNoHost) {
			return n, err
		}
	}
}

func openVsock(args []string) (io.ReadWriter, error) {
	if err := loadModules("vsock"); err != nil {
		return nil, err
	}
	for _, arg := range args {
		address, ok := strings.CutPrefix(arg, guestproto.CardArg+"=")
		if !ok {
			continue
		}
		mac, err := net.ParseMAC(address)
		if err == nil {
			err = vsock.OpenCard("eth0", [6]byte(mac), guestproto.CardPort)
		}
		if err != nil {
			return nil, err
		}
	}
	d, err := vsock.OpenDevice(guestproto.VsockPort)
	return waiting{d}, err
}

func openPort() (io.ReadWriter, error) {
	for range 1000 {
		names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			b, err := os.ReadFile(name)
			if err != nil || strings.TrimSpace(string(b)) != guestproto.PortName {
				continue
			}
			fd, err := unix.Open(filepath.Join("/dev", filepath.Base(filepath.Dir(name))), unix.O_RDWR, 0)
			if err != nil {
				return nil, err
			}
			return pipe{os.NewFile(uintptr(fd), "pipe")}, nil
		}
		<-time.After(again)
	}
	return nil, errors.New("no port")
}

// listDisks tells on the console what disks there are.
func listDisks() {
	serials, _ := filepath.Glob("/sys/block/*/serial")
	for _, path := range serials {
		dir := filepath.Dir(path)
		var facts []any
		for _, name := range []string{"serial", "size", "ro"} {
			b, _ := os.ReadFile(filepath.Join(dir, name))
			facts = append(facts, strings.TrimSpace(string(b)))
		}
		_, _ = fmt.Fprintf(os.Stdout, "disk %s: %s sectors, read-only %s\n", facts...)
	}
}

// disk is a block device without the guest's cache. Its buffer is of whole pages, as
// the kernel wants it.
type disk struct {
	*os.File
	buf []byte
}

func openDisk(name string) (vmmtest.Disk, error) {
	serials, err := filepath.Glob("/sys/block/*/serial")
	if err != nil {
		return nil, err
	}
	for _, path := range serials {
		if b, err := os.ReadFile(path); err != nil || strings.TrimSpace(string(b)) != name {
			continue
		}
		f, err := os.OpenFile(filepath.Join("/dev", filepath.Base(filepath.Dir(path))), os.O_RDWR|unix.O_DIRECT|unix.O_SYNC, 0)
		if err != nil {
			return nil, err
		}
		buf, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		return disk{f, buf}, err
	}
	return nil, fmt.Errorf("no disk %s", name)
}

func (d disk) ReadAt(b []byte, at int64) (int, error) {
	n, err := d.File.ReadAt(d.buf[:len(b)], at)
	copy(b, d.buf[:n])
	return n, err
}

func (d disk) WriteAt(b []byte, at int64) (int, error) {
	return d.File.WriteAt(d.buf[:copy(d.buf, b)], at)
}

func (d disk) Close() error { return errors.Join(d.File.Close(), unix.Munmap(d.buf)) }

func sendFrames() {
	for {
		<-time.After(100 * time.Millisecond)
		eth, err := net.InterfaceByName("eth0")
		if err != nil {
			continue
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		if err != nil {
			continue
		}
		req, _ := unix.NewIfreq(eth.Name)
		req.SetUint16(unix.IFF_UP)
		_ = unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
		frame := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, eth.HardwareAddr...)
		frame = append(append(frame, 0x88, 0xb5), make([]byte, 46)...) // an experimental protocol
		_ = unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: eth.Index, Halen: 6})
		_ = unix.Close(fd)
	}
}

func flood() error {
	line := []byte(strings.Repeat("flood ", 20) + "\n")
	for {
		if _, err := os.Stdout.Write(line); err != nil {
			return err
		}
	}
}
