//go:build linux

package pid1

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// watchOOM reports each process that the kernel kills for memory, for life.
func watchOOM(report func(guestproto.OOM)) {
	f, err := os.Open("/dev/kmsg")
	if err != nil {
		console("watch for processes killed for memory: %v", err)
		return
	}
	buf := make([]byte, 8<<10) // one record for each read; EPIPE says that some were lost
	for {
		n, err := f.Read(buf)
		if n > 0 {
			if oom, ok := parseOOM(string(buf[:n])); ok {
				report(oom)
			}
		}
		if err != nil && n == 0 && !errors.Is(err, unix.EPIPE) {
			console("read the kernel's log: %v", err)
			return
		}
	}
}

// parseOOM reads the kernel's line about a kill, such as
// oom-kill:constraint=...,task_memcg=/aegis/exec-1,task=python3,pid=7,uid=0.
func parseOOM(record string) (guestproto.OOM, bool) {
	_, line, ok := strings.Cut(record, "oom-kill:")
	if !ok {
		return guestproto.OOM{}, false
	}
	var oom guestproto.OOM
	line, _, _ = strings.Cut(line, "\n")
	for field := range strings.SplitSeq(line, ",") {
		switch key, value, _ := strings.Cut(field, "="); key {
		case "task_memcg":
			if exec, ours := strings.CutPrefix(value, "/aegis/"); ours {
				exec, _, _ = strings.Cut(exec, "/") // a cgroup the program made
				exec, _, _ = strings.Cut(exec, ".") // see newCgroup; IDs have no dot
				oom.Exec = guestproto.ExecID(exec)
			}
		case "task":
			oom.Name = value
		}
	}
	return oom, oom.Name != ""
}
