//go:build linux

package pid1

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"

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
	toolsThere.Store(true)
	return nil
}

// toolsThere says that the disk is mounted. To look at it would read it, in each clone.
var toolsThere atomic.Bool

// warmTools looks at the names of the host's programs, so that clones need not.
func warmTools() {
	entries, _ := os.ReadDir(toolsBin) // there need not be any
	for _, e := range entries {
		_, _ = e.Info() // what cannot be looked at is found out about by the one who runs it
	}
}

// withTools puts the folder of the host's programs behind all others of a PATH, where
// there is one: whatever the image has under the same name comes first.
func withTools(path string) string {
	if !toolsThere.Load() {
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
