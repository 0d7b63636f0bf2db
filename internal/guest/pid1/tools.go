//go:build linux

package pid1

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Where AegisVM's own programs for the guest are: on a tmpfs, so that nothing of it is
// seen in the image or on the disk.
const (
	toolsDir = "/run/aegis/host"
	toolsBin = toolsDir + "/bin"
)

// mountTools mounts the disk with programs that the host brings in. A VM need not have
// one.
func mountTools() error {
	dev, ok := blockDevice("tools")
	if !ok {
		return nil
	}
	if err := mountPoint(toolsDir); err != nil {
		return err
	}
	if err := (mount{dev, toolsDir, "erofs", unix.MS_RDONLY | unix.MS_NODEV | unix.MS_NOSUID, ""}).do(); err != nil {
		return fmt.Errorf("the host's programs: %w", err)
	}
	return nil
}

// withTools puts the folder of the host's programs behind all others of a PATH, where
// there is one: whatever the image has under the same name comes first.
func withTools(path string) string {
	if _, err := os.Stat(toolsBin); err != nil {
		return path
	}
	return behind(path, toolsBin)
}

// behind appends a folder to a PATH that does not have it.
func behind(path, dir string) string {
	switch {
	case path == "":
		return dir // an empty element would be the folder one is in
	case strings.Contains(":"+path+":", ":"+dir+":"):
		return path
	}
	return path + ":" + dir
}
