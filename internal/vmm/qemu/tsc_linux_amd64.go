package qemu

import (
	"bytes"
	"context"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// tscWindow is how long the counter is measured: reading the two clocks is off by
// some 100 ns, so this gives a few parts in a million.
const tscWindow = 40 * time.Millisecond

func rdtsc() uint64

// tscKHz measures the frequency of the time stamp counter against the raw clock.
// It returns 0 where the counter's pace may change. /proc/cpuinfo tells the
// frequency of the CPU, which is another.
func tscKHz(ctx context.Context) int {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return 0
	}
	source, _ := os.ReadFile(clockSource) // a kernel that does not say, has not judged it
	if !steady(info, source) {
		return 0
	}
	ns0, tsc0 := readClocks()
	select {
	case <-time.After(tscWindow):
	case <-ctx.Done():
		return 0
	}
	ns1, tsc1 := readClocks()
	return int((tsc1 - tsc0) * 1_000_000 / (ns1 - ns0)) //nolint:gosec // some millions
}

// clockSource is the file in which the kernel says what it keeps time by.
const clockSource = "/sys/devices/system/clocksource/clocksource0/current_clocksource"

// steady reports whether the counter keeps its pace: the CPU says so, or the kernel keeps
// time by it. In a VM that is emulated itself only the latter is so, and there a guest that
// were to measure the counter would never boot: its timer ticks again before it has dealt
// with the last tick.
func steady(cpuinfo, source []byte) bool {
	return bytes.Contains(cpuinfo, []byte(" constant_tsc ")) || string(bytes.TrimSpace(source)) == "tsc"
}

// readClocks reads both clocks at the same moment: of a few tries the one that
// was interrupted least.
func readClocks() (ns, tsc uint64) {
	best := ^uint64(0)
	for range 8 {
		var ts unix.Timespec
		before := rdtsc()
		if unix.ClockGettime(unix.CLOCK_MONOTONIC_RAW, &ts) != nil {
			continue
		}
		if took := rdtsc() - before; took < best {
			best, ns, tsc = took, uint64(ts.Nano()), before+took/2 //nolint:gosec // time since boot is positive
		}
	}
	return ns, tsc
}
