package presence

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestFullQueue: whoever meets a queue of connections that is full waits for room in it,
// or for the end of who does not take them.
func TestFullQueue(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	for { // until it is full
		var d net.Dialer
		conn, err := d.DialContext(t.Context(), "unix", path)
		if errors.Is(err, syscall.EAGAIN) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close() //nolint:errcheck // nothing was said
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Dial(short, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with no room: %v", err)
	}
	dialled := make(chan error, 1)
	go func() {
		conn, err := Dial(t.Context(), path)
		if err == nil {
			err = conn.Close()
		}
		dialled <- err
	}()
	taken, _, err := unix.Accept(fd)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-dialled; err != nil {
		t.Errorf("with room: %v", err)
	}
	_ = unix.Close(taken)
	go func() {
		_, err := Dial(t.Context(), path) // it is full again
		dialled <- err
	}()
	_ = unix.Close(fd)
	if err := <-dialled; err == nil {
		t.Error("nobody listens, and it is connected")
	}
}
