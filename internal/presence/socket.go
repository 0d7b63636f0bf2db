package presence

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// maxSocketPath is what fits into sun_path everywhere (104 on darwin, 108 on
// Linux), with its NUL.
const maxSocketPath = 103

// Listen makes a unix socket at path that only this user can reach. A socket that
// was there is replaced: the caller holds the lock, so nobody serves it. Paths
// longer than a socket address are allowed on Linux.
func Listen(ctx context.Context, path string) (net.Listener, error) {
	short, release, err := address(path)
	if err != nil {
		return nil, err
	}
	defer release()
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "unix", short)
	if err != nil {
		return nil, err
	}
	// The folder is 0700, so nobody else could connect in between.
	if err := os.Chmod(path, 0o600); err != nil {
		_ = ln.Close() // the first error tells more
		return nil, err
	}
	// Its short name is gone by the time the listener closes: remove it by hand.
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	return ln, nil
}

// A queue of connections that is full says neither that its process lives nor that it has
// just been killed; it is asked again for a while.
const (
	fullPatience = 5 * time.Second
	fullInterval = 10 * time.Millisecond
)

// Dial connects to the unix socket at path.
func Dial(ctx context.Context, path string) (net.Conn, error) {
	short, release, err := address(path)
	if err != nil {
		return nil, err
	}
	defer release()
	var d net.Dialer
	for end := time.Now().Add(fullPatience); ; {
		conn, err := d.DialContext(ctx, "unix", short)
		if !errors.Is(err, syscall.EAGAIN) || time.Now().After(end) {
			return conn, err
		}
		select {
		case <-time.After(fullInterval):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// address returns a name for path that fits into a socket address. It is valid
// until release is called.
func address(path string) (short string, release func(), err error) {
	if len(path) <= maxSocketPath {
		return path, func() {}, nil
	}
	if runtime.GOOS != "linux" {
		return "", nil, fmt.Errorf("%s: a socket's path has at most %d bytes: choose a shorter AEGIS_HOME", path, maxSocketPath)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)), func() { _ = dir.Close() }, nil
}
