//go:build !linux

package tree

import (
	"io/fs"
	"os"
	"syscall"
	"time"
)

const nonblock = syscall.O_NONBLOCK

func isPseudo(*os.Root, string, fs.FileInfo) bool { return false }

// setLinkTime does nothing: there is no way to name a symlink by its folder.
func setLinkTime(*os.Root, string, time.Time) {}

// xattrs and isOpaque are for root file systems, which are made on Linux.
func xattrs(*os.File, string, []byte) (map[string]string, error) { return nil, nil }

func isOpaque(*os.File) bool { return false }
