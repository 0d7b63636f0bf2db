package vsock

import (
	"errors"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/guest/port"
)

// testDevice returns a device without a listener.
func testDevice() *Device {
	d := &Device{}
	d.changed = sync.NewCond(&d.mu)
	return d
}

// join gives the device a host, and returns its end.
func join(t *testing.T, d *Device) *os.File {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "host"), os.NewFile(uintptr(fds[1]), "guest")
	t.Cleanup(func() { _ = ours.Close() })
	d.take(theirs)
	return ours
}

// read reads once, in a goroutine.
func read(d *Device) <-chan string {
	got := make(chan string, 1)
	go func() {
		b := make([]byte, 100)
		n, err := d.Read(b)
		if err != nil {
			got <- err.Error()
			return
		}
		got <- string(b[:n])
	}()
	return got
}

func expect(t *testing.T, got <-chan string, want string) {
	t.Helper()
	select {
	case is := <-got:
		if is != want {
			t.Errorf("%q, not %q", is, want)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("nothing, not %q", want)
	}
}

func TestDevice(t *testing.T) {
	d := testDevice()
	waiting := read(d)
	first := join(t, d)
	if _, err := first.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	expect(t, waiting, "hello")

	// A host that goes is told of once, and then the next is waited for.
	waiting = read(d)
	_ = first.Close()
	expect(t, waiting, port.ErrNoHost.Error())
	waiting = read(d)
	second := join(t, d)
	if _, err := second.Write([]byte("again")); err != nil {
		t.Fatal(err)
	}
	expect(t, waiting, "again")

	// One that takes the place of another ends its session.
	waiting = read(d)
	third := join(t, d)
	expect(t, waiting, port.ErrNoHost.Error())
	if _, err := d.Write([]byte("for the third")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 13)
	if _, err := io.ReadFull(third, b); err != nil || string(b) != "for the third" {
		t.Errorf("%q, %v", b, err)
	}
	if n, err := second.Read(b); n > 0 || !errors.Is(err, io.EOF) {
		t.Errorf("the second got %q, %v", b[:n], err)
	}
}

func TestDeviceWrites(t *testing.T) {
	d := testDevice()
	wrote := make(chan string, 1)
	write := func(n int) {
		go func() {
			n, err := d.Write(make([]byte, n))
			if err != nil {
				n = -1
			}
			wrote <- map[bool]string{true: "all", false: "not"}[n >= 0]
		}()
	}
	// A write without a host waits, until the deadline frees it.
	write(10)
	if err := d.SetWriteDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	expect(t, wrote, "not")
	// So does one that no host reads.
	if err := d.SetWriteDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	host := join(t, d)
	write(64 << 20)
	if _, err := io.ReadFull(host, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := d.SetWriteDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	expect(t, wrote, "not")
	// What is written to a host that has gone is lost, and no error.
	if err := d.SetWriteDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	_ = host.Close()
	write(10)
	expect(t, wrote, "all")
}
