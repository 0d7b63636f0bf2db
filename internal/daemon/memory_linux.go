package daemon

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"github.com/xfeldman/aegisvm/internal/size"
)

// hostMemory returns how much memory the host has, and how much of it a new process
// can have without others being swapped out.
func hostMemory() (total, available size.Bytes, err error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, 0, err
	}
	return parseMeminfo(b)
}

func parseMeminfo(b []byte) (total, available size.Bytes, err error) {
	if total, err = meminfoLine(b, "MemTotal:"); err != nil {
		return 0, 0, err
	}
	available, err = meminfoLine(b, "MemAvailable:")
	return total, available, err
}

// meminfoLine finds a line such as "MemTotal:    16393728 kB".
func meminfoLine(b []byte, key string) (size.Bytes, error) {
	for line := range bytes.Lines(b) {
		f := bytes.Fields(line)
		if len(f) == 3 && string(f[0]) == key {
			kb, err := strconv.ParseInt(string(f[1]), 10, 64)
			return size.Bytes(kb) * size.KiB, err
		}
	}
	return 0, fmt.Errorf("no %s in /proc/meminfo", key)
}
