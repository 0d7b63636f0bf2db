package daemon

import (
	"os"
	"runtime/debug"
	"syscall"

	"github.com/xfeldman/aegisvm/internal/netstack"
	"github.com/xfeldman/aegisvm/internal/size"
)

// boundMemory tells the garbage collector of how much memory the daemon should have at most:
// an eighth of the host's, between 256 MiB and 2 GiB. What lives in it is bounded for each
// guest; this is about what is dead and not yet collected after a burst. The user's own
// GOMEMLIMIT stands above it.
func boundMemory() {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	total, _, err := hostMemory()
	if err != nil {
		return // the collector goes on as it does without a limit
	}
	debug.SetMemoryLimit(int64(memoryLimit(total)))
}

func memoryLimit(host size.Bytes) size.Bytes {
	return min(max(host/8, 256*size.MiB), 2*size.GiB)
}

// openFiles returns how many descriptors this process may have. The runtime has raised it
// as far as it goes.
func openFiles() uint64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 1024 // what every system gives
	}
	return limit.Cur
}

// guestLimits returns what one guest's network may cost, where a process may have so many
// descriptors: each of its connections and flows is one. A guest that has all it may have
// leaves most of them to the others and to the daemon.
func guestLimits(files uint64) netstack.Limits {
	l := netstack.Limits{}.Complete()
	share := func(most int, part uint64) int { return int(min(uint64(most), max(16, files/part))) } //nolint:gosec // small numbers
	l.Connections, l.Inbound = share(l.Connections, 8), share(l.Inbound, 8)
	l.Flows, l.Opening = share(l.Flows, 16), share(l.Opening, 16)
	return l
}
