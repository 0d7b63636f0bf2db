package libkrun

import (
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// at returns the path of name in the folder. A socket's may have 103 bytes.
func (f *folder) at(name string) string { return filepath.Join(f.path, name) }

func (f *folder) mkfifo(name string) error { return unix.Mkfifo(f.at(name), 0o600) }

func errSocket(path string, err error) error {
	return fault.Wrap(fault.Unavailable, err, "make a socket in %s", path).By(fault.Host).
		WithHint("paths of sockets are short on macOS: choose a short AEGIS_HOME")
}
