package libkrun

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// at returns a path of name in the folder that is short enough for a socket.
func (f *folder) at(name string) string { return fmt.Sprintf("/proc/self/fd/%d/%s", f.dir.Fd(), name) }

func (f *folder) mkfifo(name string) error { return unix.Mkfifoat(int(f.dir.Fd()), name, 0o600) }

func errSocket(_ string, err error) error { return fmt.Errorf("make a socket: %w", err) }
