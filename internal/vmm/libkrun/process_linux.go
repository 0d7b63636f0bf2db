package libkrun

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/xfeldman/aegisvm/internal/size"
)

// startTime returns when a process was started, in ticks since boot: with its id and
// the boot's it names a process for ever.
func startTime(pid int) (uint64, error) {
	fields, err := statFields(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	if fields[0] == "Z" {
		return 0, errNoProcess
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// stopped tells whether all threads of a process stand after SIGSTOP.
func stopped(pid int) (bool, error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil {
		return false, err
	}
	if len(threads) == 0 {
		return false, errNoProcess
	}
	for _, path := range threads {
		fields, err := statFields(path)
		if errors.Is(err, os.ErrNotExist) {
			continue // it has ended
		}
		if err != nil {
			return false, err
		}
		if fields[0] != "T" && fields[0] != "t" {
			return false, nil
		}
	}
	return true, nil
}

// statFields returns what proc(5) tells of a process or a thread, from its state on.
func statFields(path string) ([]string, error) {
	stat, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	// The second field is a name in brackets that may hold anything.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 {
		return nil, fmt.Errorf("%s has %d fields", path, len(fields))
	}
	return fields, nil
}

// bootID names the time since the host was started.
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}

// usedMemory returns the memory of a process, its share of what it shares with others.
func usedMemory(pid int) (size.Bytes, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	return procKB(b, "Pss:")
}

// availableMemory returns what a new process can have without others being swapped
// out, and the free swap.
func availableMemory() (size.Bytes, error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	avail, err := procKB(b, "MemAvailable:")
	if err != nil {
		return 0, err
	}
	swap, err := procKB(b, "SwapFree:")
	return avail + swap, err
}

// procKB finds a line such as "Pss:   123 kB".
func procKB(b []byte, key string) (size.Bytes, error) {
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte(key)); ok {
			f := bytes.Fields(rest)
			if len(f) == 0 {
				break
			}
			kb, err := strconv.ParseInt(string(f[0]), 10, 64)
			return size.Bytes(kb) * size.KiB, err
		}
	}
	return 0, fmt.Errorf("no %s in what the kernel tells", key)
}
